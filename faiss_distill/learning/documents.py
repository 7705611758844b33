"""The corpus in training: streamed in blocks, to find the best list and code of each document under a student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.config import Assignment, DistillConfig, Encoding
from faiss_distill.data import query_encoders
from faiss_distill.data.queries import Queries
from faiss_distill.data.vectors import Vectors
from faiss_distill.learning.candidates import LocalQueries
from faiss_distill.learning.codes import encoder_of
from faiss_distill.learning.codes.product import closeness
from faiss_distill.learning.lists import best_lists, probing
from faiss_distill.learning.placement import CodedPlacement, Placement
from faiss_distill.learning.students import Student, similarity
from faiss_distill.progress import progress_bar
from faiss_distill.state import Codes, Float32, IndexState, Int64, Metric, Packed, Transforms

MAX_DOUBLINGS = 8
"""Of the price of a list, before documents are left where they are."""
SAMPLED_DOCUMENTS, SAMPLED_QUERIES = 8192, 512
"""At most, to find out how wrong the scores of a query's competitors are."""
COMPETITORS = 0.02
"""Share of the documents that compete for a query: those that come nearest to it."""


@dataclass(frozen=True)
class Taught:
    """Queries with their exact Top-K.

    Attributes:
        queries: ``nq`` of them.
        top: corpus rows, best first, int64 ``(nq, K)``.
        scores: their exact scores, float32 ``(nq, K)``.
        relevant: corpus rows of the documents labelled relevant, -1 as padding, int64 ``(nq, r)``, or None.
    """

    queries: Queries
    top: Int64
    scores: Float32
    relevant: Int64 | None = None

    def take(self, which: slice) -> Taught:
        """Some of them."""
        relevant = None if self.relevant is None else self.relevant[which]
        return Taught(self.queries.take(which), self.top[which], self.scores[which], relevant)


class StudentQueries:
    """Query vectors as the student has them, behind the index's transforms (Distill-VQ Eq. 5)."""

    def __init__(self, queries: Queries, transforms: Transforms, device: torch.device) -> None:
        """Transform them once, unless they come from an encoder that learns."""
        self._inputs, self._device = queries.inputs, device
        if queries.inputs is None:
            self._fixed = torch.from_numpy(transforms(queries.vectors))
        else:
            arrays = [step and tuple(torch.from_numpy(a).to(device) for a in step) for step in transforms.steps]
            self._steps = arrays

    def __call__(self, student: Student, batch: Tensor) -> Tensor:
        """The queries ``batch``, int64 ``(nq,)``: ``(nq, d)`` on the device, with the encoder's gradient."""
        if student.query_encoder is None or self._inputs is None:
            return self._fixed[batch].to(self._device)
        return self._transform(query_encoders.apply(student.query_encoder, self._inputs[batch.numpy()], self._device))

    def all(self, student: Student) -> Tensor:
        """All of them, without a gradient and with the encoder in evaluation mode."""
        if student.query_encoder is None or self._inputs is None:
            return self._fixed.to(self._device)
        return self._transform(query_encoders.embed(student.query_encoder, self._inputs, self._device))

    def _transform(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = F.normalize(x) if step is None else x @ step[0] + step[1]
        return x


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

    Attributes:
        start: lists as they are, with the stored codes if these are frozen.
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
    ) -> None:
        """Find out which queries each document matters to."""
        self.corpus, self.transforms, self.device = corpus, transforms, device
        frozen = config.encoding is Encoding.FROZEN
        self.start = CodedPlacement(state.assignment, state.codes) if frozen else Placement(state.assignment)
        self._config, self._nprobe, self._dtype = config, nprobe, state.codes.dtype
        self._n_codes = state.codes.shape[1]
        self._queries = StudentQueries(taught.queries, transforms, device)
        top, scores = taught.top[:, : config.top_k], taught.scores[:, : config.top_k]
        self._local = LocalQueries(top, scores, config.local_queries)

    def take(self, rows: Int64) -> tuple[Tensor, Tensor]:
        """Embeddings ``(k, d_in)``, and the same behind the transforms ``(k, d)``, on the device."""
        exact = self.corpus.take(rows)
        vectors = torch.from_numpy(self.transforms(exact))
        return torch.from_numpy(exact).to(self.device), vectors.to(self.device)

    @torch.no_grad()
    def renew(self, student: Student, placement: Placement, budget: float) -> Placement:
        """The lists and codes that are best under a student, streamed in blocks; only those that are to change.

        Args:
            student: the parameters.
            placement: the one before; the search for query-aware codes begins at its codes, if it has any.
            budget: what :meth:`scanned` may be, if lists are query-aware.
        """

        @cache
        def queries() -> Tensor:
            return self._queries.all(student)

        lists = placement.lists
        if self._config.lists is Assignment.REFRESHED:
            lists = self._lists(student, None, None)
        elif self._config.lists is Assignment.QUERY_AWARE:
            lists = self._affordable_lists(student, queries(), lists, budget)
        if self._config.encoding is not Encoding.QUERY_AWARE:
            return replace(placement, lists=lists)
        assert student.codebooks is not None
        offset = self._offset(student, queries(), placement)
        encoder = encoder_of(queries(), student.codebooks.detach(), student.metric, self._config, offset)

        def encode(part: slice, vectors: Tensor, opened: Tensor) -> Tensor:
            begin = placement.codes_of(student, part, vectors) if isinstance(placement, CodedPlacement) else None
            return encoder(vectors, student.residuals(vectors, opened), self._local_queries(part), begin)

        return CodedPlacement(lists, self._codes(student, lists, encode))

    def nearest_codes(self, student: Student, lists: Int64) -> Codes:
        """The codes that a student's nearest codewords make of the whole corpus in ``lists (n,)``, one row each."""
        return self._codes(student, lists, lambda _, vectors, opened: student.encode(vectors, opened))

    def stored(self, encode: Callable[[Float32, Int64], Packed], lists: Int64, code_size: int) -> Packed:
        """What an encoder of the index's own makes of the whole corpus in ``lists``: uint8 ``(n, code_size)``."""
        codes = np.empty((self.corpus.n, code_size), dtype=np.uint8)
        for start, block in self.corpus.blocks(self._config.block_rows):
            part = slice(start, start + len(block))
            codes[part] = encode(np.ascontiguousarray(self.transforms(block)), np.ascontiguousarray(lists[part]))
        return codes

    def scanned(self, student: Student, lists: Int64) -> float:
        """Codes that a training query scans, on average, with documents in ``lists (n,)``."""
        shares, _ = probing(self._queries.all(student), student.centroids, self._nprobe, student.coarse_metric)
        return _scanned(shares, lists)

    def _codes(self, student: Student, lists: Int64, encode: Callable[[slice, Tensor, Tensor], Tensor]) -> Codes:
        """Those of the whole corpus, a block at a time of its rows, vectors and lists."""
        codes = np.empty((self.corpus.n, self._n_codes), self._dtype)
        with progress_bar(self.corpus.n, "encode", "docs", self._config.progress) as bar:
            for part, vectors in self._blocks(student):
                opened = torch.from_numpy(lists[part]).to(self.device)
                codes[part] = encode(part, vectors, opened).cpu().numpy()
                bar.update(len(vectors))
        return codes

    def _offset(self, student: Student, queries: Tensor, placement: Placement) -> float:
        """What a query's competitors are wrong by: approximate minus exact score, mean over a sample of both."""
        rng = np.random.default_rng(self._config.seed)
        rows = np.sort(rng.permutation(self.corpus.n)[: min(SAMPLED_DOCUMENTS, self._config.block_rows)])
        asked = queries[torch.from_numpy(rng.permutation(len(queries))[:SAMPLED_QUERIES]).to(self.device)]
        _, vectors = self.take(rows)
        exact = similarity(asked, vectors, student.metric)
        codes = placement.codes_of(student, rows, vectors)
        wrong = student.full_scores(asked, placement.lists_of(rows, self.device), codes) - exact
        competitors = exact.topk(max(1, round(COMPETITORS * len(rows))), dim=1).indices
        return float(wrong.gather(1, competitors).mean())

    def _affordable_lists(self, student: Student, queries: Tensor, lists: Int64, budget: float) -> Int64:
        """Query-aware lists at the least price, by doubling, at which training queries scan no more than ``budget``."""
        shares, spread = probing(queries, student.centroids, self._nprobe, student.coarse_metric)
        for doublings in range(MAX_DOUBLINGS):
            chosen = self._lists(student, queries, shares * spread * 2**doublings)
            if _scanned(shares, chosen) <= budget:
                return chosen
        return lists

    def _lists(self, student: Student, queries: Tensor | None, price: Tensor | None) -> Int64:
        """The best list of each document, or of the point between it and its queries, at a price."""
        lists = np.empty(self.corpus.n, np.int64)
        for part, vectors in self._blocks(student):
            aim = vectors
            if queries is not None:
                aim = between(vectors, queries, self._local_queries(part), student.coarse_metric)
            lists[part] = best_lists(aim, student.centroids, student.coarse_metric, price).cpu().numpy()
        return lists

    def _blocks(self, student: Student) -> Iterator[tuple[slice, Tensor]]:
        """The corpus behind the transforms, on the device."""
        width = max(len(student.centroids), self._local.width)  # scores of lists within 64 MiB, queries within 128
        rows = max(1, min(self._config.block_rows, 2**24 // width))
        for start, block in self.corpus.blocks(rows):
            yield slice(start, start + len(block)), torch.from_numpy(self.transforms(block)).to(self.device)

    def _local_queries(self, part: slice) -> Tensor:
        return torch.from_numpy(self._local.of(part.start, part.stop)).to(self.device)


def _scanned(shares: Tensor, lists: Int64) -> float:
    """What documents in ``lists (n,)`` cost a query, if each list ``(nlist,)`` is probed by this share of them."""
    return float(shares.cpu().double().numpy()[lists].sum())


def between(vectors: Tensor, queries: Tensor, local: Tensor, metric: Metric) -> Tensor:
    """Half-way from documents to the mean of their local queries, which say where they will be looked for.

    For inner product, documents are first scaled to the length of the queries, which changes no choice of a list.

    Args:
        vectors: documents, ``(n, d)``.
        queries: training queries, ``(nq, d)``.
        local: each document's own queries, int64 ``(n, R)``, -1 for none; without any the document stays.
        metric: that of the coarse quantizer.

    Returns:
        Tensor ``(n, d)``.
    """
    if metric is Metric.INNER_PRODUCT:
        vectors = F.normalize(vectors) * queries.square().sum(1).mean().sqrt()
    if local.shape[1] == 0:
        return vectors
    weights = closeness(local, vectors.dtype)
    total = weights.sum(1, keepdim=True)
    weights = weights / total.clamp(min=torch.finfo(vectors.dtype).tiny)
    mean = F.embedding_bag(local.clamp(min=0), queries, per_sample_weights=weights, mode="sum")
    return torch.where(total > 0, (vectors + mean) / 2, vectors)
