"""Documents moved to where queries are: the affine map that gives them the queries' mean and covariance.

Of all maps that do, it is the one that moves them least (optimal transport between Gaussians: Dowson & Landau, 1982;
without the mean, CORAL: Sun et al., 2016). Few queries don't tell a covariance: it is shrunk towards that of the
documents, as far as makes queries that were left out the most likely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faiss_distill.state import Float32

Float64 = NDArray[np.float64]
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
FOLDS = 5
FEW = 20
"""Queries, of which fewer don't tell where queries are."""
SAME = 1e-3
"""Lengths that differ by no more than this share of one are the same."""
RIDGE = 1e-3
"""Of the mean variance, added to it: there may be fewer vectors than dimensions."""


def moved(documents: Float32, corpus: Float32, queries: Float32, directions: bool) -> Float32:
    """Documents as queries, moved to where real ones are.

    Args:
        documents: ``(m, d)``.
        corpus: a sample of all, ``(n, d)``.
        queries: real ones, ``(nq, d)``.
        directions: whether the length of a query changes no ranking. Then, and if real ones all have the same length,
            all get a typical one.

    Returns:
        One for each of the documents, float32 ``(m, d)``; the documents themselves if so few queries tell nothing.
    """
    if len(queries) < FEW:
        return documents
    centre, shape = _gaussian(corpus)
    aim, own = _gaussian(queries)
    if not (np.trace(shape) > 0 and np.trace(own) > 0):  # all the same
        return documents
    scale = float(np.trace(own) / np.trace(shape))
    share = _shrinkage(queries, shape)
    target = (1 - share) * own + share * scale * shape
    root, inverse = _roots(shape)
    matrix = inverse @ _roots(root @ target @ root)[0] @ inverse
    out = (documents - centre) @ matrix + aim
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    if directions or np.ptp(lengths) <= SAME * lengths.mean():
        typical = np.sqrt(np.square(lengths).mean())
        out *= typical / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.ascontiguousarray(out, dtype=np.float32)


def _gaussian(x: Float32) -> tuple[Float64, Float64]:
    """Mean and covariance of ``(n, d)``."""
    mean = x.mean(axis=0, dtype=np.float64)
    centred = x - mean
    covariance = centred.T @ centred / len(x)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return mean, covariance


def _roots(matrix: Float64) -> tuple[Float64, Float64]:
    """The square root of a symmetric matrix, and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, np.finfo(np.float64).eps * values[-1]))
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _shrinkage(queries: Float32, shape: Float64) -> float:
    """Of :data:`SHRINKAGES` the one under which queries of one fold are most likely, given those of the others."""
    from scipy.stats import Covariance, multivariate_normal  # which takes a second to import

    found = np.zeros(len(SHRINKAGES))
    for fold in range(FOLDS):
        out = np.arange(len(queries)) % FOLDS == fold
        mean, own = _gaussian(queries[~out])
        towards = np.trace(own) / np.trace(shape) * shape
        for i, share in enumerate(SHRINKAGES):
            lower = np.linalg.cholesky((1 - share) * own + share * towards)
            found[i] += multivariate_normal.logpdf(queries[out], mean, Covariance.from_cholesky(lower)).sum()
    return SHRINKAGES[int(found.argmax())]
