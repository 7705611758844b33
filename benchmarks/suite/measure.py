"""Per-query scores and costs of a plain search."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np

from faiss_distill.metrics import hits, recall, reciprocal_rank
from faiss_distill.state import Float32, Int64

DEPTH = 100
MOST, LITTLE = 10, 1.0
"""How often a search is timed at most, and seconds within which it is timed again: short ones are easily disturbed."""


class Searcher(Protocol):
    """Something that can be searched."""

    def search(self, vectors: Float32, k: int, nprobe: int) -> tuple[Int64, float | None]:
        """Ids ``(nq, k)``, best first, -1 where there is none, and the codes scanned a query, None if unknown."""


class FaissSearcher:
    """A faiss index, searched as its user would.

    Args:
        index: any with an IVF index inside; its ``nprobe`` is set at each search.
        matrix: what queries are multiplied with first, float32 ``(d, d)``, or None.
    """

    def __init__(self, index: Any, matrix: Float32 | None = None) -> None:
        """Find the IVF index."""
        self._index, self._ivf, self._matrix = index, faiss.extract_index_ivf(index), matrix

    def search(self, vectors: Float32, k: int, nprobe: int) -> tuple[Int64, float | None]:
        """See :class:`Searcher`."""
        stats: Any = faiss.cvar.indexIVF_stats  # type: ignore[attr-defined]
        self._ivf.nprobe = nprobe
        stats.reset()
        found = self._index.search(vectors if self._matrix is None else vectors @ self._matrix.T, k)[1]
        return found, stats.ndis / len(vectors)


@dataclass(frozen=True)
class TestQueries:
    """Queries to report on.

    Attributes:
        vectors: float32 ``(nq, d)``.
        truth: ids of the exact Top-10, best first, int64 ``(nq, 10)``.
        relevant: ids of the documents labelled relevant, -1 as padding, int64 ``(nq, r)``.
    """

    __test__ = False  # no tests for pytest in here

    vectors: Float32
    truth: Int64
    relevant: Int64


@dataclass(frozen=True)
class Measured:
    """One index at one nprobe.

    Attributes:
        scores: each metric of :func:`per_query`, float32 ``(nq,)``.
        codes_scanned: codes compared a query, or None if unknown.
        latency_ms: milliseconds a query, all searched as one batch.
    """

    scores: dict[str, Float32]
    codes_scanned: float | None
    latency_ms: float


def per_query(found: Int64, truth: Int64, relevant: Int64) -> dict[str, Float32]:
    """Scores of each query.

    Args:
        found: ids of the first 100, best first, -1 where there is none, int64 ``(nq, 100)``.
        truth: the exact Top-10, best first, int64 ``(nq, 10)``.
        relevant: labelled ids, -1 as padding, int64 ``(nq, r)``.

    Returns:
        Against the exact search: ``overlap_at_10`` (share of the Top-10 in the first 10), ``nearest_in_10`` (whether
        the nearest is there) and ``recall_at_100`` (share of the Top-10 in the first 100). Against labels:
        ``mrr_at_10``, ``label_recall_at_10`` and ``label_recall_at_100``, unless no query has any.
    """
    first = found[:, :10]
    scores = {
        "overlap_at_10": recall(first, truth),
        "nearest_in_10": hits(first, truth[:, :1]).astype(np.float32),
        "recall_at_100": recall(found, truth),
    }
    if (relevant < 0).all():
        return scores
    return scores | {
        "mrr_at_10": reciprocal_rank(first, relevant),
        "label_recall_at_10": recall(first, relevant),
        "label_recall_at_100": recall(found, relevant),
    }


def measure(searcher: Searcher, queries: TestQueries, nprobe: int, repeats: int = 3) -> Measured:
    """Search all queries at once, ``repeats`` times, or more if short; the latency is that of the fastest."""
    seconds: list[float] = []
    while len(seconds) < repeats or (len(seconds) < MOST and sum(seconds) < LITTLE):
        start = time.perf_counter()
        found, codes_scanned = searcher.search(queries.vectors, DEPTH, nprobe)
        seconds.append(time.perf_counter() - start)
    scores = per_query(found, queries.truth, queries.relevant)
    return Measured(scores, codes_scanned, 1000 * min(seconds) / len(found))
