"""Exact scores from the embeddings themselves (Distill-VQ Eq. 4), streamed in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import faiss
import numpy as np
import torch
from faiss.contrib.exhaustive_search import knn_ground_truth
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.data.vectors import Vectors
from faiss_distill.learning.students import similarity
from faiss_distill.metrics import all_but
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, Int64, Metric
from faiss_distill.world import ALONE, World


@dataclass(frozen=True)
class Teacher:
    """The exact reference scores of an index.

    Attributes:
        metric: the index's metric.
        normalize: compare unit vectors, as an index whose transforms normalise (``L2norm``) does.
        block_rows: corpus rows in memory at a time.
        device: with CUDA the search runs in torch, otherwise in faiss.
        progress: show a progress bar.
        world: processes that search a part of the corpus each.
        kind: that of the teacher, as the report has it.
        agreement: share of the exact Top-K that it finds.
        cost: of finding them, as a share of that of exhaustive search.
    """

    metric: Metric
    normalize: bool = False
    block_rows: int = 16_384
    device: str = "cpu"
    progress: bool = False
    world: World = ALONE

    kind: ClassVar[str] = "exhaustive"
    agreement: ClassVar[float] = 1.0
    cost: ClassVar[float] = 1.0

    def scores(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """Exact scores of ``queries (nq, d)`` on ``vectors (k, d)``: ``(nq, k)``, higher is better."""
        if self.normalize:
            queries, vectors = F.normalize(queries), F.normalize(vectors)
        return similarity(queries, vectors, self.metric)

    def own_scores(self, queries: Tensor, vectors: Tensor) -> Tensor:
        """Exact scores of ``queries (nq, d)`` on vectors of their own ``(nq, k, d)``: ``(nq, k)``."""
        if self.normalize:
            queries, vectors = F.normalize(queries), F.normalize(vectors, dim=2)
        if self.metric is Metric.L2:
            return -(queries[:, None] - vectors).square().sum(2)
        return torch.bmm(vectors, queries[:, :, None])[:, :, 0]

    def top_k(self, corpus: Vectors, queries: Float32, k: int, exclude: Int64 | None = None) -> tuple[Int64, Float32]:
        """The exact Top-K of every query.

        Args:
            corpus: the embeddings, ``n >= k`` of them (``n > k`` with ``exclude``).
            queries: float32 ``(nq, d)``.
            k: neighbours a query.
            exclude: a row of the corpus that query ``i`` must not find, int64 ``(nq,)``: itself, where documents
                are the queries.

        Returns:
            Rows of the corpus, int64 ``(nq, k)``, best first, and their scores, float32 ``(nq, k)``.
        """
        if self.normalize:
            queries = F.normalize(torch.from_numpy(queries)).numpy()
        depth = k if exclude is None else k + 1
        search = self._search_torch if torch.device(self.device).type == "cuda" else self._search_faiss
        ids, scores = best_of_all(self.world, *search(corpus, queries, depth))
        if exclude is not None:
            kept = all_but(ids, exclude)
            ids, scores = ids[kept].reshape(-1, k), scores[kept].reshape(-1, k)
        return ids, scores

    def _blocks(self, corpus: Vectors) -> Iterator[Float32]:
        part = self.world.share(corpus.n)
        with progress_bar(part.stop - part.start, "teacher", "docs", self.progress) as bar:
            for _, block in corpus.blocks(self.block_rows, part):
                yield F.normalize(torch.from_numpy(block)).numpy() if self.normalize else block
                bar.update(len(block))

    def _search_faiss(self, corpus: Vectors, queries: Float32, k: int) -> tuple[Int64, Float32]:
        ip = self.metric is Metric.INNER_PRODUCT
        metric_type = faiss.METRIC_INNER_PRODUCT if ip else faiss.METRIC_L2
        found = knn_ground_truth(queries, self._blocks(corpus), k, metric_type, ngpu=0)
        return _counted_from(self.world.share(corpus.n).start, found[1]), found[0] if ip else -found[0]

    def _search_torch(self, corpus: Vectors, queries: Float32, k: int, batch: int = 4096) -> tuple[Int64, Float32]:
        q = torch.from_numpy(queries).to(self.device)
        scores = torch.full((len(q), k), -torch.inf, device=q.device)
        ids = torch.full((len(q), k), -1, dtype=torch.int64, device=q.device)
        start = self.world.share(corpus.n).start
        for block in self._blocks(corpus):
            x = torch.from_numpy(block).to(q.device)
            for i in range(0, len(q), batch):
                part = slice(i, i + batch)
                best = similarity(q[part], x, self.metric).topk(min(k, len(x)), dim=1)
                merged = torch.cat([scores[part], best.values], dim=1)
                merged_ids = torch.cat([ids[part], best.indices + start], dim=1)
                scores[part], keep = merged.topk(k, dim=1)
                ids[part] = merged_ids.gather(1, keep)
            start += len(x)
        return ids.cpu().numpy(), scores.cpu().numpy()


def best_of_all(world: World, ids: Int64, scores: Float32) -> tuple[Int64, Float32]:
    """The best of what all processes found for the same queries, each in other documents.

    Args:
        world: the processes.
        ids: rows of the corpus, best first, -1 as padding, int64 ``(nq, k)``.
        scores: theirs, float32 ``(nq, k)``.

    Returns:
        The same of all.
    """
    if world.size == 1:
        return ids, scores
    k = ids.shape[1]
    scores = np.concatenate(world.stacked(np.where(ids < 0, -np.inf, scores).astype(np.float32)), axis=1)
    ids = np.concatenate(world.stacked(ids), axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)


def _counted_from(start: int, ids: Int64) -> Int64:
    """Rows of the corpus for rows of a part that begins at ``start``; -1 stays."""
    return np.where(ids < 0, ids, ids + start)


def calibrate_temperature(scores: Float32, perplexity: float) -> float:
    """The temperature at which the softmax over each row has this perplexity, on average (geometric mean).

    A flat distribution teaches nothing and a one-hot one only the first rank; perplexity says which lies between,
    whatever the scale of the embeddings.

    Args:
        scores: the teacher's Top-K, float32 ``(nq, K)``.
        perplexity: between 1 and ``K``.

    Returns:
        The temperature, positive. If all scores are the same, 1.

    Examples:
        >>> scores = np.array([[3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
        >>> p = np.exp(scores / calibrate_temperature(scores, 3.0))
        >>> p /= p.sum()
        >>> round(float(np.exp(-(p * np.log(p)).sum())), 2)
        3.0
    """
    logits = torch.from_numpy(scores).double()
    logits = logits - logits.max(dim=1, keepdim=True).values
    spread = float(-logits.mean())
    if spread == 0:
        return 1.0
    low, high = np.log(spread) - 15, np.log(spread) + 15
    for _ in range(60):  # monotone in the temperature, but flat where many scores tie: bisection needs no bracket
        middle = (low + high) / 2
        p = torch.log_softmax(logits / np.exp(middle), dim=1)
        entropy = float(-(p.exp() * p).sum(dim=1).mean())
        low, high = (low, middle) if entropy > np.log(perplexity) else (middle, high)
    return float(np.exp((low + high) / 2))
