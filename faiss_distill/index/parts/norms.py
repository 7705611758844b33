"""How an additive quantizer stores the squared norm of what it encodes: as a float, or as one of values that it holds.

Values come from k-means in one dimension, whose optimum is found by dynamic programming (of many norms, that of a
sample, which all of them then improve): the same norms always give the same values. Norms of two 4-bit codes are sums
of two such values, the second one of what the first leaves, as in a residual quantizer (Chen, Guan and Wang, 2010).
faiss searches for these in other ways, which take up to a hundred times as long, and gives new ones each time.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.state import Float32

SAMPLE = 4096
"""Of more norms, as many quantiles stand for all, to begin with."""
ROUNDS = 100
"""Of k-means on all of them, from there."""


def levels(quantizer: Any) -> int:
    """How many values a quantizer chooses from that were learned; 1 where norms are floats or equal steps."""
    kinds = type(quantizer)
    return {
        kinds.ST_norm_cqint8: 256, kinds.ST_norm_cqint4: 16, kinds.ST_norm_lsq2x4: 256, kinds.ST_norm_rq2x4: 256,
    }.get(quantizer.search_type, 1)  # fmt: skip


def read(quantizer: Any) -> Float32:
    """What a quantizer has learned of norms: their ends, the values they are rounded to, and the terms of these."""
    ends = np.array([quantizer.norm_min, quantizer.norm_max], dtype=np.float32)
    return np.concatenate([ends, _values(quantizer), faiss.vector_to_array(quantizer.norm_tabs)])


def put(quantizer: Any, learned: Float32) -> None:
    """Have a quantizer round norms as another of its kind does, of which :func:`read` has told how."""
    count = levels(quantizer)
    quantizer.norm_min, quantizer.norm_max = map(float, learned[:2])
    if count > 1:
        _set(quantizer, learned[2 : 2 + count], learned[2 + count :])


def fit(quantizer: Any, norms: Float32) -> None:
    """Have a quantizer round these norms, float32 ``(n,)``, about as well as it can.

    Values that it holds stay where none are found that are better, or where there are too few norms to find any.
    """
    count = levels(quantizer)
    if len(np.unique(norms)) <= count:
        return
    quantizer.norm_min, quantizer.norm_max = float(norms.min()), float(norms.max())
    if count == 1:
        return
    of_two_codes = quantizer.norm_tabs.size() > 0
    first = _k_means(norms, 16 if of_two_codes else count)
    second = _k_means(norms - _nearest(first, norms), 16) if of_two_codes else np.zeros(1, dtype=np.float32)
    values = (first + second[:, None]).ravel()
    if _loss(values, norms) < _loss(_values(quantizer), norms):
        _set(quantizer, values, np.concatenate([first, second]) if of_two_codes else values[:0])


def _values(quantizer: Any) -> Float32:
    return faiss.vector_to_array(quantizer.qnorm.codes).view(np.float32)


def _set(quantizer: Any, values: Float32, terms: Float32) -> None:
    quantizer.qnorm.reset()
    quantizer.qnorm.add(np.ascontiguousarray(values)[:, None])
    faiss.copy_array_to_vector(np.ascontiguousarray(terms), quantizer.norm_tabs)


def _k_means(x: Float32, k: int) -> Float32:
    """The ``k`` values that are best for ``x``, or nearly so where there are many, rising: float32 ``(k,)``."""
    x = np.sort(x)
    clustering: Any = faiss.Clustering1D(k)
    clustering.train_exact(x[np.linspace(0, len(x) - 1, min(len(x), SAMPLE)).astype(np.int64)][:, None])
    values = np.sort(faiss.vector_to_array(clustering.centroids)).astype(np.float64)
    sums = np.concatenate([[0], np.cumsum(x, dtype=np.float64)])
    for _ in range(ROUNDS if len(x) > SAMPLE else 0):  # Lloyd's, whose cells are stretches of what is sorted
        ends = np.concatenate([[0], np.searchsorted(x, (values[1:] + values[:-1]) / 2), [len(x)]])
        sizes = np.diff(ends)
        values = np.where(sizes > 0, np.diff(sums[ends]) / np.maximum(sizes, 1), values)
    return values.astype(np.float32)


def _nearest(values: Float32, x: Float32) -> Float32:
    """Of ``values`` in rising order, the one nearest to each ``x``."""
    right = np.clip(np.searchsorted(values, x), 1, len(values) - 1)
    left = values[right - 1]
    nearest: Float32 = np.where(x - left < values[right] - x, left, values[right])
    return nearest


def _loss(values: Float32, x: Float32) -> float:
    """Mean squared error of ``x`` rounded to the nearest of ``values``; infinite without any."""
    return float(np.mean(np.square(_nearest(np.sort(values), x) - x, dtype=np.float64))) if len(values) else np.inf
