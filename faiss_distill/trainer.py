"""The tuning run: split, teacher, optimise, encode, validate, commit."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from faiss_distill import inputs
from faiss_distill.adapters import open_index
from faiss_distill.candidates import LocalQueries, in_batch_candidates
from faiss_distill.config import DistillConfig, Encoding
from faiss_distill.encoding import QueryAwareEncoder
from faiss_distill.errors import InputError
from faiss_distill.evaluation import Evaluation, QuerySet, measure
from faiss_distill.losses import listnet
from faiss_distill.report import DistillReport
from faiss_distill.routing import probed_lists
from faiss_distill.state import Float32, Int64, IVFPQState
from faiss_distill.students import IVFPQStudent, nearest_codes
from faiss_distill.teacher import Teacher, calibrate_temperature

logger = logging.getLogger(__name__)

MIN_QUERIES = 60
"""Fewer can't be split into a training and a validation set that decide anything."""
MIN_VALIDATION, MAX_VALIDATION = 200, 5_000
"""Held-out queries, when the split is ours (and at most a third of all): fewer decide little, more only cost time."""
MAX_SELECTION = 500
"""Of the held-out queries, those that choose the best epoch, at most."""
STAND_INS = 40_000
"""Documents that stand in for queries, validation included, at most."""


@dataclass(frozen=True)
class _Split:
    """Queries of one purpose. ``rows`` are the corpus rows they are, where documents stand in, else None."""

    vectors: Float32
    rows: Int64 | None
    relevant: Int64 | None


@dataclass(frozen=True)
class _Taught:
    """Queries with their exact Top-K: corpus rows and scores, each ``(nq, K)``, best first."""

    queries: _Split
    top: Int64
    scores: Float32

    def subset(self, which: slice) -> _Taught:
        q = self.queries
        rows = None if q.rows is None else q.rows[which]
        relevant = None if q.relevant is None else q.relevant[which]
        return _Taught(_Split(q.vectors[which], rows, relevant), self.top[which], self.scores[which])


class DistillTrainer:
    """Fine-tunes one index. Everything is checked on construction; only :meth:`train` changes the index.

    Memory beyond the index: the queries with their Top-K, a second copy of ids and codes, the new inverted lists
    beside the old ones, and ``config.block_rows`` rows of the corpus.

    Args:
        index: see :func:`faiss_distill.distill`, as for all arguments.
        embeddings: the vectors behind the index, ``(n, d)``.
        queries: training queries ``(nq, d)``, or None.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        relevant: relevant ids of ``queries``.
        validation_queries: queries that choose and judge; held out of ``queries`` if None.
        validation_relevant: relevant ids of ``validation_queries``.
        config: the options.

    Raises:
        UnsupportedIndexError: the index can't be tuned.
        InputError: something else about the arguments is wrong.
    """

    def __init__(
        self,
        index: Any,
        embeddings: Any,
        queries: Any = None,
        *,
        ids: Any = None,
        relevant: Any = None,
        validation_queries: Any = None,
        validation_relevant: Any = None,
        config: DistillConfig | None = None,
    ) -> None:
        """Check everything, load the queries and split them."""
        self.config = config = config or DistillConfig()
        self.seconds: dict[str, float] = {}
        self._rng = np.random.default_rng(config.seed)
        try:
            self._device = torch.empty(0, device=config.device).device
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device: expected one that torch can use, got {config.device!r}: {error}") from error
        with self._phase("check"):
            self._adapter = adapter = open_index(index)
            self._state = adapter.extract()
            self._labels = adapter.outer_ids(self._state.ids)
            self._corpus = inputs.open_corpus(adapter, embeddings, self._labels, ids)
            if config.top_k >= self._state.n:
                raise InputError(f"top_k: expected less than the {self._state.n} vectors stored, got {config.top_k}")
            self.query_source = "documents" if queries is None else "queries"
            self._train, self._validation = self._split(queries, relevant, validation_queries, validation_relevant)
            self._corpus.check_finite(config.block_rows, config.progress)
            inputs.check_corpus(adapter, self._state, self._corpus, self._rng)
        self._teacher = Teacher(adapter.metric, adapter.normalizes, config.block_rows, config.device, config.progress)
        self._nprobe = min(config.nprobe or adapter.nprobe, adapter.ivf.nlist)

    def train(self) -> DistillReport:
        """Tune the index in place, if that makes it better.

        Returns:
            What was found before and after, whether the result was kept, and why.
        """
        with self._phase("teacher"):
            train = self._teach(self._train)
            held_out = self._teach(self._validation)
        # No query both chooses the epoch and judges the result.
        n_selection = min(len(held_out.top) // 4, MAX_SELECTION)
        selection = held_out.subset(slice(0, n_selection))
        judges = self._query_set(held_out.subset(slice(n_selection, None)))
        with self._phase("evaluate"):
            before = measure(self._adapter, judges, self._nprobe)
        temperature = calibrate_temperature(train.scores[:1000], self.config.perplexity)
        with self._phase("optimise"):
            student, history = self._optimise(train, selection, temperature)
        with self._phase("encode"):
            quantizer, state = self._encode(student, train)
        with self._phase("commit"):
            change = self._adapter.write(state, quantizer)
        with change:
            with self._phase("evaluate"):
                after = measure(self._adapter, judges, self._nprobe)
            kept, reason, gain, interval = self._judge(before, after)
            if kept:
                change.commit()
        logger.info("%s: %s", "kept" if kept else "not kept", reason)
        return DistillReport(
            kept=kept,
            reason=reason,
            index=self._adapter.description,
            metric=self._adapter.metric.value,
            n=self._state.n,
            query_source=self.query_source,
            n_train=len(train.top),
            n_validation=len(judges.truth),
            before=before,
            after=after,
            gain=gain,
            interval=interval,
            temperature=temperature,
            history=tuple(history),
            seconds={**self.seconds, "total": sum(self.seconds.values())},
            config=self.config,
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    # -- queries ---------------------------------------------------------------------------------------------------

    def _split(
        self, queries: Any, relevant: Any, validation_queries: Any, validation_relevant: Any
    ) -> tuple[_Split, _Split]:
        """Training and validation queries."""
        config, n = self.config, self._state.n
        for name, value, needs in (
            ("relevant", relevant, queries),
            ("validation_queries", validation_queries, queries),
            ("validation_relevant", validation_relevant, validation_queries),
        ):
            if value is not None and needs is None:
                raise InputError(f"{name}: expected together with the queries it belongs to, got it without them")
        if queries is None:
            rows = self._rng.permutation(n)[: min(STAND_INS, config.max_queries)]
            return self._divide(_Split(self._take_documents(rows), rows, None), "embeddings")
        whole = self._load(queries, relevant, "queries", config.max_queries)
        if validation_queries is None:
            return self._divide(whole, "queries")
        held_out = self._load(validation_queries, validation_relevant, "validation_queries", config.max_queries)
        if len(held_out.vectors) < MIN_QUERIES // 3:
            raise InputError(
                f"validation_queries: expected at least {MIN_QUERIES // 3}, got {len(held_out.vectors)}; pass more, "
                f"or leave them out to have some held out of queries"
            )
        return whole, held_out

    def _take_documents(self, rows: Int64) -> Float32:
        order = np.argsort(rows)
        out = np.empty((len(rows), self._corpus.d), dtype=np.float32)
        out[order] = self._corpus.take(rows[order])  # ascending: kind to a memory-mapped file
        return out

    def _load(self, queries: Any, relevant: Any, name: str, limit: int) -> _Split:
        vectors = inputs.open_queries(self._adapter, queries, name, self.config.block_rows)
        labels = relevant_name = None
        if relevant is not None:
            relevant_name = name.replace("queries", "relevant")
            labels = inputs.open_relevant(relevant, vectors.n, self._labels, relevant_name)
        rows = np.sort(self._rng.permutation(vectors.n)[:limit])
        return _Split(vectors.take(rows), None, None if labels is None else labels[rows])

    def _divide(self, whole: _Split, name: str) -> tuple[_Split, _Split]:
        n = len(whole.vectors)
        if n < MIN_QUERIES:
            raise InputError(
                f"{name}: expected at least {MIN_QUERIES} to train on some and judge by others, got {n}; "
                f"pass more queries, or none to have documents stand in for them"
            )
        held_out = min(max(round(self.config.validation_fraction * n), MIN_VALIDATION), n // 3, MAX_VALIDATION)
        order = self._rng.permutation(n)

        def part(which: Int64) -> _Split:
            rows = None if whole.rows is None else whole.rows[which]
            return _Split(whole.vectors[which], rows, None if whole.relevant is None else whole.relevant[which])

        return part(order[held_out:]), part(order[:held_out])

    def _teach(self, queries: _Split) -> _Taught:
        top, scores = self._teacher.top_k(self._corpus, queries.vectors, self.config.top_k, queries.rows)
        return _Taught(queries, top, scores)

    def _query_set(self, taught: _Taught) -> QuerySet:
        q = taught.queries
        return QuerySet(
            vectors=q.vectors,
            truth=self._labels[taught.top],
            exclude=None if q.rows is None else self._labels[q.rows],
            relevant=q.relevant,
        )

    # -- optimisation ----------------------------------------------------------------------------------------------

    def _optimise(
        self, train: _Taught, selection: _Taught, temperature: float
    ) -> tuple[IVFPQStudent, list[dict[str, float | None]]]:
        """Train centroids and codebooks; return the state that does best on the selection queries."""
        config = self.config
        student = IVFPQStudent(self._state).to(self._device)
        generator = torch.Generator().manual_seed(config.seed)
        n = len(train.top)
        batch = min(config.batch_size, n)
        steps = config.epochs * (n // batch)
        # Steps relative to the parameters' own scale, so that the embeddings' norm needs no tuning.
        groups = [
            {"params": [p], "lr": config.learning_rate * max(float(p.detach().square().mean().sqrt()), 1e-12)}
            for p in student.parameters()
        ]
        optimizer = torch.optim.Adam(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(steps))
        select = _Selection(self, selection)
        best, best_score, stale = copy.deepcopy(student.state_dict()), select(student), 0
        history: list[dict[str, float | None]] = [{"epoch": 0, "loss": None, "overlap_at_10": best_score}]
        batches = _Batches(self, train)
        with tqdm(total=steps, desc="distil", unit="steps", disable=None if config.progress else True) as bar:
            for epoch in range(1, config.epochs + 1):
                total = 0.0
                order = torch.randperm(n, generator=generator)
                for i in range(0, n - batch + 1, batch):
                    loss = self._loss(student, batches, order[i : i + batch], generator, temperature)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    scheduler.step()
                    total += loss.item()
                    bar.update()
                score = select(student)
                history.append({"epoch": epoch, "loss": total / (n // batch), "overlap_at_10": score})
                bar.set_postfix({"selection overlap@10": f"{score:.4f}"})
                if score > best_score:
                    best, best_score, stale = copy.deepcopy(student.state_dict()), score, 0
                else:
                    stale += 1
                    if stale >= config.patience:
                        break
        student.load_state_dict(best)
        return student, history

    def _loss(
        self, student: IVFPQStudent, batches: _Batches, rows: Tensor, generator: torch.Generator, temperature: float
    ) -> Tensor:
        """Distill-VQ Eq. 6: ListNet of the teacher with the full and with the coarse score."""
        candidates = in_batch_candidates(batches.top[rows], self.config.sampled, generator)
        exact, vectors, assignment = self._documents(candidates)
        targets = self._teacher.scores(batches.exact[rows].to(self._device), exact) / temperature
        codes = student.encode(vectors, assignment)  # codes follow the codebooks; gradients flow through the chosen
        coarse, full = student(batches.queries[rows].to(self._device), assignment, codes)
        mask = None
        if batches.own is not None:
            mask = (candidates != batches.own[rows, None]).to(self._device)
        return listnet(full / temperature, targets, mask) + listnet(coarse / temperature, targets, mask)

    def _documents(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Corpus rows as tensors: as embedded ``(k, d_in)``, behind the transforms ``(k, d)``, and their lists."""
        exact = self._corpus.take(rows.numpy())
        vectors = self._adapter.transform(exact)
        lists = torch.from_numpy(self._state.assignment[rows.numpy()])
        return tuple(t.to(self._device) for t in (torch.from_numpy(exact), torch.from_numpy(vectors), lists))  # type: ignore[return-value]

    # -- encoding --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _encode(self, student: IVFPQStudent, train: _Taught) -> tuple[Any, IVFPQState]:
        """Codes of the whole corpus under the learned parameters, and a quantizer that holds its centroids."""
        config, state = self.config, self._state
        quantizer = self._adapter.quantizer_with(student.centroids.detach().cpu().numpy())
        centroids: Float32 = quantizer.reconstruct_n(0, len(state.centroids))  # what it kept of them: fp16 rounds
        student.centroids.copy_(torch.from_numpy(centroids))
        codebooks = student.codebooks.detach()
        if config.encoding is Encoding.QUERY_AWARE:
            queries = torch.from_numpy(self._adapter.transform(train.queries.vectors)).to(self._device)
            encoder = QueryAwareEncoder(queries, state.metric, config)
            local = LocalQueries(train.top, train.scores, config.local_queries)
        codes = np.empty_like(state.codes)
        with tqdm(total=state.n, desc="encode", unit="docs", disable=None if config.progress else True) as bar:
            for start, block in self._corpus.blocks(config.block_rows):
                stop = start + len(block)
                vectors = torch.from_numpy(self._adapter.transform(block)).to(self._device)
                residuals = student.residuals(vectors, torch.from_numpy(state.assignment[start:stop]).to(self._device))
                if config.encoding is Encoding.QUERY_AWARE:
                    near = torch.from_numpy(local.of(start, stop)).to(self._device)
                    chosen = encoder(vectors, residuals, codebooks, near)
                else:
                    chosen = nearest_codes(residuals, codebooks)
                codes[start:stop] = chosen.cpu().numpy()
                bar.update(len(block))
        return quantizer, replace(state, centroids=centroids, codebooks=codebooks.cpu().numpy(), codes=codes)

    # -- the gate --------------------------------------------------------------------------------------------------

    def _judge(self, before: Evaluation, after: Evaluation) -> tuple[bool, str, float, tuple[float, float]]:
        """Whether the tuned index is better, by a paired bootstrap over the judging queries."""
        config, own, new = self.config, before.own, after.own
        difference = after.overlap - before.overlap
        test = stats.bootstrap(
            (difference,), np.mean, n_resamples=2000, batch=100, confidence_level=config.confidence,
            method="percentile", rng=np.random.default_rng(config.seed),
        )  # fmt: skip
        low, high = (float(x) for x in test.confidence_interval)
        gain = float(difference.mean())
        measured = f"{gain:+.3f} [{low:+.3f}, {high:+.3f}] on {len(difference)} held-out queries"
        where = f"overlap@10 at nprobe {own.nprobe}"
        if not low > 0:
            return False, f"{where} did not rise for certain: {measured}", gain, (low, high)
        if new.codes_scanned > own.codes_scanned * (1 + config.max_scan_increase):
            reason = (
                f"{where} rose by {measured}, but codes scanned rose too, from {own.codes_scanned:.0f} to "
                f"{new.codes_scanned:.0f} a query (max_scan_increase={config.max_scan_increase})"
            )
            return False, reason, gain, (low, high)
        return True, f"{where} rose by {measured}", gain, (low, high)


class _Batches:
    """The training queries as tensors."""

    def __init__(self, trainer: DistillTrainer, train: _Taught) -> None:
        q = train.queries
        self.top = torch.from_numpy(train.top)
        self.exact = torch.from_numpy(q.vectors)
        self.queries = torch.from_numpy(trainer._adapter.transform(q.vectors))
        self.own = None if q.rows is None else torch.from_numpy(q.rows)


class _Selection:
    """Overlap@10 of a student on the selection queries, as a search of the union of their Top-K would have it.

    Lists are probed exactly, and documents have their nearest codes. No faiss index is built.
    """

    def __init__(self, trainer: DistillTrainer, selection: _Taught) -> None:
        self._nprobe, self._metric = trainer._nprobe, trainer._state.metric
        pool = np.unique(selection.top)
        _, self._vectors, self._assignment = trainer._documents(torch.from_numpy(pool))
        transformed = trainer._adapter.transform(selection.queries.vectors)
        self._queries = torch.from_numpy(transformed).to(self._vectors.device)
        self._truth = torch.from_numpy(np.searchsorted(pool, selection.top[:, :10])).to(self._vectors.device)
        rows = selection.queries.rows
        self._own = None if rows is None else torch.from_numpy(pool == rows[:, None]).to(self._vectors.device)

    @torch.no_grad()
    def __call__(self, student: IVFPQStudent) -> float:
        _, scores = student(self._queries, self._assignment, student.encode(self._vectors, self._assignment))
        probed = probed_lists(self._queries, student.centroids, self._nprobe, self._metric)[:, self._assignment]
        hidden = ~probed if self._own is None else ~probed | self._own
        scores = scores.masked_fill(hidden, -torch.inf)
        best = scores.topk(10, dim=1)
        found = best.indices.masked_fill(best.values.isneginf(), -1)
        return float((found[:, :, None] == self._truth[:, None, :]).any(dim=2).float().mean())


def _warm_cosine(steps: int) -> Any:
    """Learning rate factor of a step: linear warm-up over 5 % of ``steps``, then cosine decay to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))))
