"""Which documents a query is scored on, and which queries a document is coded for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from faiss_distill.state import Float32, Int64


def in_batch_candidates(top: Tensor, sampled: int, generator: torch.Generator) -> Tensor:
    """Distill-VQ's "IB + Top-K": a sample of each query's Top-K, shared by the whole batch.

    Args:
        top: the teacher's Top-K of each query in the batch, int64 ``(nq, K)``.
        sampled: how many of the ``K`` are drawn, without replacement.
        generator: source of randomness.

    Returns:
        The distinct drawn documents, ascending, int64 ``(k,)`` with ``k <= nq * sampled``.
    """
    drawn = torch.rand(top.shape, generator=generator).topk(sampled, dim=1).indices
    candidates: Tensor = torch.unique(top.gather(1, drawn))
    return candidates


class LocalQueries:
    """Each document's best queries, read off the teacher's lists at no further cost.

    A query is local to a document if the document is in its exact Top-K; the best are those that score it highest.
    Memory is proportional to ``nq * K``, whatever the size of the corpus.

    Args:
        top: the teacher's Top-K, int64 ``(nq, K)``.
        scores: their scores, float32 ``(nq, K)``.
        limit: queries kept for each document.
    """

    def __init__(self, top: Int64, scores: Float32, limit: int) -> None:
        """Invert the lists."""
        documents, queries = top.ravel(), np.repeat(np.arange(len(top)), top.shape[1])
        order = np.lexsort((-scores.ravel(), documents))
        documents, queries = documents[order], queries[order]
        rank = np.arange(len(documents)) - np.searchsorted(documents, documents)
        kept = rank < limit
        self._documents, self._queries, self._rank = documents[kept], queries[kept], rank[kept]
        self._limit = limit

    def of(self, start: int, stop: int) -> Int64:
        """Queries of the documents ``start..stop``: int64 ``(stop - start, limit)``, best first, -1 for none."""
        low, high = np.searchsorted(self._documents, [start, stop])
        out = np.full((stop - start, self._limit), -1, dtype=np.int64)
        out[self._documents[low:high] - start, self._rank[low:high]] = self._queries[low:high]
        return out
