"""Whether documents can stand in for queries: real queries are compared with documents used as queries, by two signs.

*Outside*: Mahalanobis distance from the documents' mean, as vector search calls queries out of distribution (Jaiswal et
al., OOD-DiskANN, 2022). *Further*: how far the tenth best document stands out from all, in standard deviations of a
query's scores, which is the same for any scale of the vectors. Each is told as the share of all pairs of a query and a
document that it holds for (Mann and Whitney, 1947): a half if the two are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.likeness import unit
from faiss_distill.state import Float32, Metric

OUTSIDE, FURTHER = 0.9, 0.6
"""Beyond both, documents taught less than nothing beside 500 real queries: see ``benchmarks/notes.md``, 34."""
DOCUMENTS, ASKED = 4096, 400
"""Documents that are looked at, and queries of each kind, at most."""
DEPTH = 10
"""The document that stands out."""
SHRINKAGE = 0.1
"""Of the documents' covariance, towards a multiple of the identity: there may be fewer documents than dimensions."""


@dataclass(frozen=True)
class Comparison:
    """Real queries beside documents used as queries.

    Attributes:
        outside: share of the pairs of a query and a document, of which the query is further out of all documents.
        further: share of the pairs of which the query has its neighbours further away.
    """

    outside: float
    further: float

    @property
    def unlike(self) -> bool:
        """Whether documents are none to learn from, or to judge by."""
        return self.outside > OUTSIDE and self.further > FURTHER

    def __str__(self) -> str:
        """As text."""
        return (
            f"real queries are unlike documents: in {self.outside:.0%} of all pairs of both the query lies further "
            f"out, and in {self.further:.0%} its neighbours are further away"
        )


def compared(documents: Float32, queries: Float32, metric: Metric, normalizes: bool) -> Comparison | None:
    """How real queries compare with documents.

    Args:
        documents: a sample of the corpus, ``(n, d)``.
        queries: real ones, ``(nq, d)``.
        metric: of the exact scores.
        normalizes: whether these are those of unit vectors.

    Returns:
        The comparison; None with too few documents for one.
    """
    if len(documents) < 2 * DEPTH + 2:
        return None
    if normalizes:
        documents = unit(documents)
    if normalizes or metric is Metric.INNER_PRODUCT:  # the length of a query changes no ranking
        queries = unit(queries)
    own = spaced(len(documents), min(ASKED, len(documents) // 2))
    asked = queries[spaced(len(queries), ASKED)]
    further = _share(
        _standing_out(documents, documents[own], metric, own), _standing_out(documents, asked, metric, None)
    )
    if metric is Metric.INNER_PRODUCT:
        documents = unit(documents)
    others = np.delete(documents, own, axis=0)
    return Comparison(_share(_outside(others, asked), _outside(others, documents[own])), further)


def spaced(n: int, wanted: int) -> NDArray[np.int64]:
    """Rows of ``n``, evenly spaced: ``wanted`` of them, or all."""
    return np.unique(np.linspace(0, n - 1, min(n, wanted), dtype=np.int64))


def _share(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The share of all pairs of which the one from ``a`` is larger; a tie is half a pair."""
    from scipy.stats import mannwhitneyu  # which takes a second to import

    return float(mannwhitneyu(a, b, method="asymptotic").statistic) / (len(a) * len(b))


def _standing_out(
    documents: Float32, queries: Float32, metric: Metric, own: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Standard deviations from the mean of a query's scores to the tenth best, but that of the query itself."""
    scores = queries.astype(np.float64) @ documents.T.astype(np.float64)
    if metric is Metric.L2:  # the length of the query is the same for all documents
        scores = 2 * scores - np.square(documents).sum(axis=1, dtype=np.float64)
    if own is not None:
        others = np.ones(scores.shape, dtype=bool)
        others[np.arange(len(own)), own] = False
        scores = scores[others].reshape(len(own), -1)
    best, spread = np.partition(scores, -DEPTH, axis=1)[:, -DEPTH], scores.std(axis=1)
    return np.asarray(np.divide(best - scores.mean(axis=1), spread, out=np.zeros_like(best), where=spread > 0))


def _outside(documents: Float32, queries: Float32) -> NDArray[np.float64]:
    """Squared Mahalanobis distances of queries ``(nq, d)`` from documents ``(n, d)``: ``(nq,)``."""
    from scipy.linalg import solve_triangular

    mean = documents.mean(axis=0, dtype=np.float64)
    x = documents - mean
    covariance = x.T @ x / len(x)
    typical = float(np.trace(covariance)) / len(covariance) or 1.0
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * typical * np.eye(len(covariance))
    found = solve_triangular(np.linalg.cholesky(covariance), (queries - mean).T, lower=True)
    return np.asarray(np.square(found).sum(axis=0))
