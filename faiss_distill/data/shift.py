"""What a mean that an index takes off does to inner products.

Behind a PCA, faiss compares ``(x - m) A`` with ``(q - m) A``. Distances stay as they were, but inner products change by
``-x . m``, which differs from document to document, so that the index ranks by another score than that of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faiss_distill.metrics import recall
from faiss_distill.state import Float32, Int64

Step = tuple[Float32, Float32] | None
DEPTH = 10


def overlaps(
    steps: Sequence[Step], documents: Float32, queries: Float32, normalizes: bool
) -> tuple[float, float] | None:
    """How much of the exact top 10 by inner product an exact search behind the transforms can find.

    Args:
        steps: the transforms, see :class:`faiss_distill.state.Transforms`.
        documents: a sample of them, ``(n, d_in)``.
        queries: ``(nq, d_in)``.
        normalizes: whether the exact score is one of unit vectors.

    Returns:
        The mean share over queries with the constants that the transforms add, and without; None if they add none.
    """
    if not any(step is not None and step[1].any() for step in steps):
        return None
    unshifted = [step if step is None else (step[0], np.zeros_like(step[1])) for step in steps]
    exact: Sequence[Step] = [None] if normalizes else []
    wanted, shifted, kept = (_top(_apply(s, documents), _apply(s, queries)) for s in (exact, steps, unshifted))
    return float(recall(shifted, wanted).mean()), float(recall(kept, wanted).mean())


def _apply(steps: Sequence[Step], x: Float32) -> Float32:
    for step in steps:
        if step is None:
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        else:
            x = x @ step[0] + step[1]
    return x


def _top(documents: Float32, queries: Float32) -> Int64:
    return np.asarray(np.argsort(-queries @ documents.T, axis=1)[:, :DEPTH])
