"""The corpus in training: streamed in blocks, to find the best list and code of each document under a student."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor

from faiss_distill.columns import column, copied, numbers, permuted
from faiss_distill.config import Assignment, DistillConfig, Encoding
from faiss_distill.data.vectors import Vectors
from faiss_distill.learning.candidates import LocalQueries
from faiss_distill.learning.codes import encoder_of
from faiss_distill.learning.lists import best_lists, between, probing
from faiss_distill.learning.placement import CodedPlacement, Placement
from faiss_distill.learning.students import Student, similarity
from faiss_distill.learning.taught import StudentQueries, Taught
from faiss_distill.progress import Bar, progress_bar
from faiss_distill.stages import TENFOLD, Stages, covered_tenfold
from faiss_distill.state import Bool, Codes, Float32, Float64, IndexState, Int64, Metric, Packed, Transforms
from faiss_distill.workdir import NOWHERE, Stored, Workdir
from faiss_distill.world import ALONE, World

MAX_DOUBLINGS = 8
"""Of the price of a list, before documents are left where they are."""
LEAST_SCANNED = 0.85
"""Of their budget, by training queries: prices above that break up lists, which few judges can ask for."""
SAMPLED_LISTS = 16_384
"""Documents that tell what lists cost, at most: while training, codes scanned are known to about 1 %."""
SAMPLED_DOCUMENTS, SAMPLED_QUERIES = 8192, 512
"""At most, to find out how wrong the scores of a query's competitors are."""
LAP = 2**17
"""Documents that are encoded between two checkpoints: about half a minute of two cores."""
COMPETITORS = {Metric.INNER_PRODUCT: (0.02, 0.02), Metric.L2: (0.002, 0.01)}
"""Share of the documents that compete for a query, those that come nearest to it: where documents have as many local
queries as they may, and where they have half of them or less. For L2 the scores of those further away are wrong by much
more, and to count fewer is a bonus for documents that are in few queries' Top-K."""
FEWEST = 20
"""Documents that compete, at least: the nearest few of a small corpus are those to be found themselves."""
Encode = Callable[[Int64, Tensor, Tensor], Tensor]
"""From rows ``(k,)`` of the corpus, their vectors ``(k, d)`` and lists ``(k,)`` to codes, int64, one row each."""


@dataclass(frozen=True)
class Terms:
    """On what terms documents get lists and codes under a student; empty if these don't depend on queries.

    Attributes:
        queries: the training queries as it has them, ``(nq, d)``.
        shares: of them that probe each list, ``(nlist,)``.
        price: of each list, ``(nlist,)``; None if documents stay in theirs, or get the nearest one.
        offset: what the scores of a query's competitors are wrong by.
    """

    queries: Tensor
    shares: Tensor
    price: Tensor | None
    offset: float

    def stored(self) -> dict[str, Tensor]:
        """Its arrays but for the queries, by name, as :meth:`restored` takes them."""
        return {"shares": self.shares} | ({} if self.price is None else {"price": self.price})

    @classmethod
    def restored(cls, arrays: Mapping[str, Tensor], offset: float) -> Terms:
        """Terms from their arrays, without the queries, which a student has; see :meth:`Documents.terms_of`."""
        return cls(torch.empty(0), arrays["shares"], arrays.get("price"), offset)


class Documents:
    """The corpus behind the index's transforms, and where in the index its documents are best put.

    Args:
        corpus: the embeddings.
        transforms: those of the index.
        state: lists and stored codes, in the order of the corpus.
        taught: the training queries.
        nprobe: lists that a search probes.
        config: ``lists``, ``encoding`` and what belongs to them.
        device: where tensors go.
        stages: where the seconds spent on lists and on codes are counted.
        world: processes that place some of the documents each.

    Attributes:
        start: lists as they are, with the stored codes if these are frozen.
        compiled: whether the last search for query-aware codes was.
        sample: documents that tell what is true of all, ascending int64; all of them if they are no more than 16,384.
    """

    def __init__(
        self,
        corpus: Vectors,
        transforms: Transforms,
        state: IndexState,
        taught: Taught,
        nprobe: int,
        config: DistillConfig,
        device: torch.device,
        stages: Stages | None = None,
        world: World = ALONE,
    ) -> None:
        """Find out which queries each document matters to."""
        self.corpus, self.transforms, self.device, self.world = corpus, transforms, device, world
        self._stages, self.compiled = stages or Stages(), False
        frozen = config.encoding is Encoding.FROZEN
        self.start = Placement(state.assignment)
        if frozen:
            self.start = CodedPlacement(state.assignment, state.codes, np.ones(state.n, dtype=bool))
        self._config, self._nprobe, self._dtype = config, nprobe, state.codes.dtype
        self._n_codes = state.codes.shape[1]
        self._queries = StudentQueries(taught.queries, transforms, device)
        top, scores = taught.top[:, : config.top_k], taught.scores[:, : config.top_k]
        self._local = LocalQueries(top, scores, config.local_queries)
        order = permuted(corpus.n, np.random.default_rng(config.seed))
        self.sample = np.sort(order[:SAMPLED_LISTS])

    def exact(self, rows: Int64) -> Tensor:
        """Embeddings as they were passed, ``(k, d_in)``, on the device."""
        return torch.from_numpy(self.corpus.take(rows)).to(self.device)

    def vectors(self, rows: Int64) -> Tensor:
        """Embeddings behind the transforms, ``(k, d)``, on the device."""
        return torch.from_numpy(self.transforms(self.corpus.take(rows))).to(self.device)

    @torch.no_grad()
    def terms(
        self, student: Student, placement: Placement, budget: float, judges: tuple[Tensor, float] | None = None
    ) -> Terms:
        """On what terms lists and codes are to be chosen under a student, as a sample of the documents tells.

        Args:
            student: the parameters.
            placement: the one before.
            budget: what :meth:`scanned` of the sample may be, if lists are query-aware.
            judges: queries ``(nq, d)`` that don't train, and how many codes they may scan. Documents move to lists that
                training queries seldom probe; others may probe those more often. Left out if no price suits both.
        """
        aware = self._config.lists is Assignment.QUERY_AWARE, self._config.encoding is Encoding.QUERY_AWARE
        if not any(aware):
            return Terms(torch.empty(0), torch.empty(0), None, 0.0)
        with self._stages("lists"):
            return self._terms(student, placement, budget, judges, *aware)

    def terms_of(self, student: Student, terms: Terms) -> Terms:
        """The same terms on the device, with the queries as a student has them."""
        price = None if terms.price is None else terms.price.to(self.device)
        queries = self._queries.all(student) if len(terms.shares) else terms.queries
        return Terms(queries, terms.shares.to(self.device), price, terms.offset)

    def _terms(
        self,
        student: Student,
        placement: Placement,
        budget: float,
        judges: tuple[Tensor, float] | None,
        lists: bool,
        codes: bool,
    ) -> Terms:
        queries, price, offset = self._queries.all(student), None, 0.0
        shares, spread = self._probing(student, queries)
        if lists:
            unit = Terms(queries, shares, shares * spread, offset)
            judged = (shares, budget) if judges is None else (self._probing(student, judges[0])[0], judges[1])
            price = self._price(student, placement.lists, unit, budget, *judged)
        if codes:
            offset = self.world.agreed(self._offset(student, queries, placement))
        return Terms(queries, shares, price, offset)

    def _price(
        self, student: Student, before: Int64, unit: Terms, budget: float, judged: Tensor, most: float
    ) -> Tensor | None:
        """The lowest price that keeps training queries within their budget and judges, if it may, within theirs."""
        assert unit.price is not None
        lowest = None
        for doublings in range(MAX_DOUBLINGS):
            price = unit.price * float(2**doublings)
            chosen = self._lists(student, replace(unit, price=price), self.sample, before)
            scanned = self._scanned(unit.shares, chosen)
            if scanned > budget:
                continue
            lowest = price if lowest is None else lowest
            if scanned < LEAST_SCANNED * budget:
                break
            if self._scanned(judged, chosen) <= most:
                return price
        return lowest

    @torch.no_grad()
    def renew(self, student: Student, placement: Placement, terms: Terms, rows: Int64 | None = None) -> Placement:
        """The lists and codes that are best under a student, streamed in blocks; only those that are to change.

        Args:
            student: the parameters.
            placement: the one before; the search for query-aware codes begins at its codes, where it has some.
            terms: those of the same student.
            rows: the documents to choose them for, ascending; the others stay as they are. All if None.
        """
        rows = numbers(self.corpus.n) if rows is None else rows
        growth = covered_tenfold(len(rows), self.corpus.n)
        with self._stages("lists", growth):
            lists = copied(placement.lists)
            lists[rows] = self._lists(student, terms, rows, placement.lists)
        with self._stages("codes", growth):
            return self._coded(student, replace(placement, lists=lists), terms, rows)

    @torch.no_grad()
    def complete(
        self, student: Student, placement: Placement, terms: Terms, budget: float, workdir: Workdir = NOWHERE
    ) -> Placement:
        """As :meth:`renew`, for all documents that it has not been done for under this student.

        Args:
            student: the parameters.
            placement: renewed under it, as far as documents were looked at.
            terms: those it was renewed on. Lists are dearer if the whole corpus takes that.
            budget: what :meth:`scanned` of the whole corpus may be, if lists are query-aware.
            workdir: where lists and codes are kept, a part of the documents at a time.
        """
        with self._stages("lists", TENFOLD):
            found = workdir.stage("lists", lambda: self._all_lists(student, placement, terms, budget))
            lists = found.arrays["lists"].numpy()
        if self._config.encoding is not Encoding.QUERY_AWARE:
            return replace(placement, lists=lists)
        assert isinstance(placement, CodedPlacement)
        known = slice(None) if placement.rows is None else placement.rows
        done = np.zeros(len(lists), dtype=bool)
        done[known] = placement.fresh & (lists[known] == placement.lists[known])
        with self._stages("codes", TENFOLD):
            return self._completed(student, replace(placement, lists=lists), terms, done, workdir)

    def _completed(
        self, student: Student, placement: CodedPlacement, terms: Terms, done: Bool, workdir: Workdir
    ) -> CodedPlacement:
        """The same with codes of all documents, new but for those ``done``, in laps, each of which is kept."""
        codes = column((self.corpus.n, self._n_codes), self._dtype)
        codes[slice(None) if placement.rows is None else placement.rows] = placement.codes
        encode = cache(partial(self._encoder, student, placement, terms))
        with progress_bar(int((~done).sum()), "encode", "docs", self._config.progress) as bar:
            for number, start in enumerate(range(0, self.corpus.n, LAP)):
                lap = start + np.flatnonzero(~done[start : start + LAP])
                if not len(lap):
                    continue

                def chosen(lap: Int64 = lap) -> Stored:
                    best = self._codes(student, placement.lists, encode(), lap, bar)
                    return Stored({"codes": torch.from_numpy(best)}, {"compiled": self.compiled})

                found = workdir.stage(f"codes-{number}", chosen)
                self.compiled = found.facts["compiled"]
                codes[lap] = found.arrays["codes"].numpy()
        return CodedPlacement(placement.lists, codes, np.ones(len(codes), dtype=bool))

    def _all_lists(self, student: Student, placement: Placement, terms: Terms, budget: float) -> Stored:
        """The best lists of all documents, as far as the budget goes."""
        everything = numbers(self.corpus.n)
        for _ in range(MAX_DOUBLINGS):
            lists = self._lists(student, terms, everything, placement.lists)
            if terms.price is None or self._scanned(terms.shares, lists) <= budget:
                break
            terms = replace(terms, price=2 * terms.price)
        else:
            lists = self.start.lists
        return Stored({"lists": torch.from_numpy(lists)}, {})

    def _coded(self, student: Student, placement: Placement, terms: Terms, rows: Int64) -> Placement:
        """The same with query-aware codes of the documents ``rows``, if codes are to be query-aware."""
        if self._config.encoding is not Encoding.QUERY_AWARE:
            return placement
        encode = self._encoder(student, placement, terms)
        with progress_bar(len(rows), "encode", "docs", self._config.progress) as bar:
            return placement.with_codes(rows, self._codes(student, placement.lists, encode, rows, bar))

    def _encoder(self, student: Student, placement: Placement, terms: Terms) -> Encode:
        """What finds query-aware codes, from those in ``placement`` on where it has some."""
        assert student.codebooks is not None
        books = student.codebooks.detach()
        encoder = encoder_of(terms.queries, books, student.metric, self._config, terms.offset, self._uneven)
        self.compiled = encoder.compiled

        def encode(part: Int64, vectors: Tensor, opened: Tensor) -> Tensor:
            residuals, own = student.residuals(vectors, opened), self._local_queries(part)
            found = torch.zeros((len(part), self._n_codes), dtype=torch.int64, device=self.device)
            known = np.zeros(len(part), dtype=bool)
            if isinstance(placement, CodedPlacement):
                at, known = placement.find(part)
                found = torch.from_numpy(placement.codes[at].astype(np.int64)).to(self.device)
            for has_codes in (False, True):
                which = torch.from_numpy(np.flatnonzero(known == has_codes)).to(self.device)
                if len(which):
                    begin = found[which] if has_codes else None
                    found[which] = encoder(vectors[which], residuals[which], own[which], begin)
            return found

        return encode

    @torch.no_grad()
    def nearest_codes(self, student: Student, lists: Int64) -> Codes:
        """The codes that a student's nearest codewords make of the whole corpus in ``lists (n,)``, one row each."""
        everything = numbers(self.corpus.n)
        with progress_bar(self.corpus.n, "encode", "docs", self._config.progress) as bar:
            return self._codes(student, lists, lambda _, *given: student.encode(*given), everything, bar)

    def stored(self, encode: Callable[[Float32, Int64], Packed], lists: Int64, code_size: int) -> Packed:
        """What an encoder of the index's own makes of the whole corpus in ``lists``: uint8 ``(n, code_size)``."""
        own = self.world.share(self.corpus.n)
        codes = column((own.stop - own.start, code_size), np.uint8)
        for start, block in self.corpus.blocks(self._config.block_rows, own):
            part, at = slice(start, start + len(block)), start - own.start
            found = encode(np.ascontiguousarray(self.transforms(block)), np.ascontiguousarray(lists[part]))
            codes[at : at + len(block)] = found
        return self.world.gathered(codes, self.corpus.n)

    def scanned(self, student: Student, lists: Int64) -> float:
        """Codes that a training query scans, on average, with documents in ``lists``: ``(n,)``, or :attr:`sample`'s."""
        shares, _ = self._probing(student, self._queries.all(student))
        return self._scanned(shares, lists)

    def _probing(self, student: Student, queries: Tensor) -> tuple[Tensor, float]:
        """See :func:`probing`."""
        return probing(queries, student.signposts, self._nprobe, student.coarse_metric, self.world)

    def _scanned(self, shares: Tensor, lists: Int64) -> float:
        """What the corpus costs a query, with a sample of it in ``lists``, each probed by this share of the queries."""
        members = np.bincount(lists, minlength=len(shares))
        return self.world.agreed(float(shares.cpu().double().numpy() @ members) / len(lists) * self.corpus.n)

    def lengths(self, lists: Int64, nlist: int) -> Float64:
        """How many documents each list holds, ``(nlist,)``, as the sample tells of ``lists (n,)``."""
        counted = np.bincount(lists[self.sample], minlength=nlist).astype(np.float64)
        return counted * (len(lists) / len(self.sample))

    def _codes(self, student: Student, lists: Int64, encode: Encode, rows: Int64, bar: Bar) -> Codes:
        """Those of the documents ``rows``, a block at a time of its rows, vectors and lists."""
        own = rows[self.world.share(len(rows))]
        codes = column((len(own), self._n_codes), self._dtype)
        for where, vectors in self._blocks(student, own):
            opened = torch.from_numpy(lists[own[where]]).to(self.device)
            codes[where] = encode(own[where], vectors, opened).cpu().numpy()
            bar.update(len(vectors) * self.world.size)
        return self.world.gathered(codes, len(rows))

    @cached_property
    def _uneven(self) -> float:
        """Standard deviation of the documents' lengths, relative to their mean, as a sample tells."""
        few = min(SAMPLED_DOCUMENTS, self._config.block_rows)
        lengths = self.vectors(self.sample[:: -(-len(self.sample) // few)]).norm(dim=1)
        lengths = lengths[lengths > 0]
        return float(lengths.std(correction=0) / lengths.mean()) if len(lengths) else 0.0

    @cached_property
    def _lacking(self) -> float:
        """How many of the local queries that documents may have they lack, as a share that a sample tells."""
        most = max(1, self._config.local_queries) * len(self.sample)
        return 1 - float((self._local.of(self.sample) >= 0).sum() / most)

    def _offset(self, student: Student, queries: Tensor, placement: Placement) -> float:
        """What a query's competitors are wrong by: approximate minus exact score, mean over a sample of both."""
        rng = np.random.default_rng(self._config.seed)
        rows = np.sort(rng.permutation(self.sample)[: min(SAMPLED_DOCUMENTS, self._config.block_rows)])
        asked = queries[torch.from_numpy(rng.permutation(len(queries))[:SAMPLED_QUERIES]).to(self.device)]
        vectors = self.vectors(rows)
        exact = similarity(asked, vectors, student.metric)
        codes = placement.codes_of(student, rows, lambda: vectors)
        wrong = student.full_scores(asked, placement.lists_of(rows, self.device), codes) - exact
        full, half = COMPETITORS[student.metric]
        share = max(full + (half - full) * min(1.0, 2 * self._lacking), FEWEST / self.corpus.n)
        competitors = exact.topk(max(1, round(min(share, 1.0) * len(rows))), dim=1).indices
        return float(wrong.gather(1, competitors).mean())

    def _lists(self, student: Student, terms: Terms, rows: Int64, before: Int64) -> Int64:
        """The best lists of the documents ``rows (k,)``, which were in ``before (n,)``: int64 ``(k,)``.

        Query-aware ones are those of the points between documents and their queries, at a price; without one to be had
        documents stay where they are.
        """
        aware = self._config.lists is Assignment.QUERY_AWARE
        if self._config.lists is Assignment.FIXED or (aware and terms.price is None):
            return before[rows]
        own = rows[self.world.share(len(rows))]
        lists = column((len(own),), np.int64)
        for where, vectors in self._blocks(student, own):
            aim = vectors
            if aware:
                aim = between(vectors, terms.queries, self._local_queries(own[where]), student.coarse_metric)
            lists[where] = best_lists(aim, student.signposts, student.coarse_metric, terms.price).cpu().numpy()
        return self.world.gathered(lists, len(rows))

    def _blocks(self, student: Student, rows: Int64) -> Iterator[tuple[slice, Tensor]]:
        """Documents behind the transforms, on the device, and where in ``rows`` they are."""
        width = max(len(student.centroids), self._local.width)  # scores of lists within 64 MiB, queries within 128
        size = max(1, min(self._config.block_rows, 2**24 // width))
        for start in range(0, len(rows), size):
            where = slice(start, min(start + size, len(rows)))
            yield where, self.vectors(rows[where])

    def _local_queries(self, rows: Int64) -> Tensor:
        return torch.from_numpy(self._local.of(rows)).to(self.device)
