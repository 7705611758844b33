"""Where in a sequence an event becomes frequent, or ceases to be: one change point, by the likelihood ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faiss_distill.state import Int64

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

STEP = 12.0
"""Log-likelihood ratio above which there is a change point, and flags do not lie anywhere."""


@dataclass(frozen=True)
class Cut:
    """Where flags begin, or end, to be set much more often than elsewhere.

    Attributes:
        at: the first flag after it.
        backwards: whether the more frequent ones come before it.
    """

    at: int
    backwards: bool


def step(flags: Bool, least: float) -> Cut | None:
    """The likeliest cut with flags on one side of it alone; None if there is none beyond chance.

    Args:
        flags: ``(k,)``.
        least: the share of flags on their side, at least.
    """
    n, total = len(flags), int(flags.sum())
    at = np.arange(1, n)
    before = np.cumsum(flags, dtype=np.int64)[:-1]
    after = total - before
    ratio = _log_likelihood(before, at) + _log_likelihood(after, n - at)
    ratio -= _log_likelihood(np.array([total]), np.array([n]))
    backwards = before * (n - at) > after * at
    many, few = np.maximum(before / at, after / (n - at)), np.minimum(before / at, after / (n - at))
    # Odd rows come in a handful, and there are copies at which nothing can be seen: neither makes a cut.
    sharp = (many > least) & (many > 5 * few) & (np.where(backwards, before, after) >= 5)
    sharp &= np.where(backwards, n - at, at) >= 0.05 * n
    if not (sharp & (ratio > STEP)).any():
        return None
    best = int(np.where(sharp, ratio, 0).argmax())
    return Cut(best + 1, bool(backwards[best]))


def _log_likelihood(k: Int64, n: Int64) -> Float64:
    """Of ``k`` of ``n`` flags, at their own rate."""
    from scipy.special import xlogy  # which takes a while to import

    return np.asarray(xlogy(k, k / n) + xlogy(n - k, 1 - k / n))
