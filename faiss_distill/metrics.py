"""Ranking metrics on id arrays, per query. An id of -1 means "nothing returned" or "no label" and never matches.

Average them over queries yourself: the per-query values are what a paired test needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from faiss_distill.state import Float32, Int64


def all_but(found: Int64, excluded: Int64) -> NDArray[np.bool_]:
    """Keep all of ``found (nq, k + 1)`` but ``excluded (nq,)``, or but the last where that is -1 or was not found.

    Returns:
        A mask ``(nq, k + 1)`` with ``k`` true in each row.

    Examples:
        >>> found = np.array([[5, 3, 8], [1, 2, 3]])
        >>> found[all_but(found, np.array([3, 9]))].reshape(2, 2).tolist()
        [[5, 8], [1, 2]]
    """
    kept: NDArray[np.bool_] = (found != excluded[:, None]) | (excluded == -1)[:, None]
    kept[:, -1] &= ~kept.all(axis=1)
    return kept


def hits(found: Int64, wanted: Int64) -> Int64:
    """How many of ``wanted (nq, w)``, distinct in each row, are in ``found (nq, k)``: int64 ``(nq,)``.

    Examples:
        >>> hits(np.array([[3, 1, -1]]), np.array([[1, 2, -1]])).tolist()
        [1]
    """
    there = (wanted[:, :, None] == found[:, None, :]).any(axis=2) & (wanted != -1)
    return np.asarray(there.sum(axis=1), dtype=np.int64)


def recall(found: Int64, wanted: Int64) -> Float32:
    """Share of ``wanted (nq, w)`` that is in ``found (nq, k)``: float32 ``(nq,)``, 0 for a query that wants nothing."""
    count = np.maximum((wanted != -1).sum(axis=1), 1)
    return np.asarray(hits(found, wanted) / count, dtype=np.float32)


def reciprocal_rank(found: Int64, wanted: Int64) -> Float32:
    """One over the rank of the first wanted id, 0 if none is found: float32 ``(nq,)``.

    Examples:
        >>> reciprocal_rank(np.array([[9, 4, 7]]), np.array([[7]])).round(3).tolist()
        [0.3330000042915344]
    """
    match = ((found[:, :, None] == wanted[:, None, :]) & (wanted != -1)[:, None, :]).any(axis=2)
    return np.where(match.any(axis=1), 1.0 / (match.argmax(axis=1) + 1), 0.0).astype(np.float32)
