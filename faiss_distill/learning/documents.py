"""The corpus as a student sees it: the list and the code of every document, renewed as the parameters move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.config import Assignment, DistillConfig, Encoding
from faiss_distill.data import query_encoders
from faiss_distill.data.queries import Queries
from faiss_distill.data.vectors import Vectors
from faiss_distill.learning.candidates import LocalQueries
from faiss_distill.learning.codes.additive import AdditiveEncoder
from faiss_distill.learning.codes.product import QueryAwareEncoder, closeness
from faiss_distill.learning.lists import best_lists, probing
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
        return self._transform(query_encoders.encode(student.query_encoder, self._inputs, self._device))

    def _transform(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = F.normalize(x) if step is None else x @ step[0] + step[1]
        return x


class Documents:
    """The corpus, the list of every document and, unless it follows the codebooks at every step, its code.

    Args:
        corpus: the embeddings.
        transforms: those of the index.
        state: lists and stored codes, in the order of the corpus.
        taught: the training queries.
        nprobe: lists that a search probes.
        config: ``lists``, ``encoding`` and what belongs to them.
        device: where tensors go.

    Attributes:
        assignment: list of each document, int64 ``(n,)``.
        codes: code of each document ``(n, M)``; None while it is the nearest one under the student.
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
        """Start from the lists as they are, and from the stored codes if they are frozen."""
        self.corpus, self.transforms, self.device = corpus, transforms, device
        self.assignment = state.assignment
        self.codes: Codes | None = state.codes if config.encoding is Encoding.FROZEN else None
        self._config, self._nprobe, self._dtype = config, nprobe, state.codes.dtype
        self._n_codes = state.codes.shape[1]
        self._queries = StudentQueries(taught.queries, transforms, device)
        top, scores = taught.top[:, : config.top_k], taught.scores[:, : config.top_k]
        self._local = LocalQueries(top, scores, config.local_queries)
        self._scanned_at_first: float | None = None

    def take(self, rows: Int64) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``(k, d_in)``, the same behind the transforms ``(k, d)``, and lists ``(k,)``, on the device."""
        exact = self.corpus.take(rows)
        vectors = torch.from_numpy(self.transforms(exact))
        return torch.from_numpy(exact).to(self.device), vectors.to(self.device), self.lists(rows)

    def lists(self, rows: Int64) -> Tensor:
        """Lists of the documents, int64 ``(k,)``, on the device."""
        return torch.from_numpy(self.assignment[rows]).to(self.device)

    def codes_of(self, student: Student, rows: Int64, vectors: Tensor, lists: Tensor) -> Tensor:
        """Their codes, or without any the nearest ones under the student: int64 ``(k, M)``."""
        if self.codes is None:
            return student.encode(vectors, lists)
        return torch.from_numpy(self.codes[rows].astype(np.int64)).to(self.device)

    def renew(self, student: Student) -> None:
        """Move documents to the lists, and give them the codes, that are best for them under a student."""
        assignment, encoding = self._config.lists, self._config.encoding
        aware = encoding is Encoding.QUERY_AWARE
        if aware or assignment is not Assignment.FIXED:
            self.assignment, codes = self.choose(student, assignment, encoding if aware else None)
            self.codes = codes if aware else self.codes

    @torch.no_grad()
    def choose(self, student: Student, assignment: Assignment, encoding: Encoding | None) -> tuple[Int64, Codes]:
        """Lists ``(n,)`` and codes ``(n, M)`` of the whole corpus under a student, streamed in blocks.

        Args:
            student: the parameters.
            assignment: how lists are chosen.
            encoding: how codes are chosen; with None they are left undefined. The search for query-aware codes begins
                at the current ones, if there are any.
        """
        queries = None
        if Assignment.QUERY_AWARE is assignment or Encoding.QUERY_AWARE is encoding:
            queries = self._queries.all(student)
        lists = self.assignment
        if assignment is Assignment.REFRESHED:
            lists = self._lists(student, None, None)
        elif assignment is Assignment.QUERY_AWARE:
            assert queries is not None
            lists = self._affordable_lists(student, queries)
        if encoding is None or student.codebooks is None:
            return lists, np.empty((self.corpus.n, 0), self._dtype)
        codes = np.empty((self.corpus.n, self._n_codes), self._dtype)
        encoder = None
        if encoding is Encoding.QUERY_AWARE:
            assert queries is not None
            kind = QueryAwareEncoder if student.codebooks.ndim == 3 else AdditiveEncoder
            offset = self._offset(student, queries)
            encoder = kind(queries, student.codebooks.detach(), student.metric, self._config, offset)
        with progress_bar(self.corpus.n, "encode", "docs", self._config.progress) as bar:
            for part, vectors in self._blocks(student):
                opened = torch.from_numpy(lists[part]).to(self.device)
                if encoder is None:
                    chosen = student.encode(vectors, opened)
                else:
                    start = None
                    if self.codes is not None:
                        start = torch.from_numpy(self.codes[part].astype(np.int64)).to(self.device)
                    residuals = student.residuals(vectors, opened)
                    chosen = encoder(vectors, residuals, self._local_queries(part), start)
                codes[part] = chosen.cpu().numpy()
                bar.update(len(vectors))
        return lists, codes

    def stored(self, encode: Callable[[Float32, Int64], Packed], code_size: int) -> Packed:
        """What an encoder of the index's own makes of the whole corpus in its lists: uint8 ``(n, code_size)``."""
        codes = np.empty((self.corpus.n, code_size), dtype=np.uint8)
        for start, block in self.corpus.blocks(self._config.block_rows):
            part = slice(start, start + len(block))
            vectors, lists = self.transforms(block), self.assignment[part]
            codes[part] = encode(np.ascontiguousarray(vectors), np.ascontiguousarray(lists))
        return codes

    def _offset(self, student: Student, queries: Tensor) -> float:
        """What a query's competitors are wrong by: approximate minus exact score, mean over a sample of both."""
        rng = np.random.default_rng(self._config.seed)
        rows = np.sort(rng.permutation(self.corpus.n)[: min(SAMPLED_DOCUMENTS, self._config.block_rows)])
        asked = queries[torch.from_numpy(rng.permutation(len(queries))[:SAMPLED_QUERIES]).to(self.device)]
        _, vectors, lists = self.take(rows)
        exact = similarity(asked, vectors, student.metric)
        wrong = student.full_scores(asked, lists, self.codes_of(student, rows, vectors, lists)) - exact
        competitors = exact.topk(max(1, round(COMPETITORS * len(rows))), dim=1).indices
        return float(wrong.gather(1, competitors).mean())

    @torch.no_grad()
    def _affordable_lists(self, student: Student, queries: Tensor) -> Int64:
        """Query-aware lists at the least price, by doubling, at which training queries scan no more than at first."""
        shares, spread = probing(queries, student.centroids, self._nprobe, student.coarse_metric)

        def scanned(lists: Int64) -> float:
            return float(shares.cpu().double().numpy()[lists].sum())

        if self._scanned_at_first is None:
            self._scanned_at_first = scanned(self.assignment)
        for doublings in range(MAX_DOUBLINGS):
            lists = self._lists(student, queries, shares * spread * 2**doublings)
            if scanned(lists) <= self._scanned_at_first:
                return lists
        return self.assignment

    def _lists(self, student: Student, queries: Tensor | None, price: Tensor | None) -> Int64:
        """The best list of each document, or of the point between it and its queries, at a price."""
        lists = np.empty_like(self.assignment)
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
