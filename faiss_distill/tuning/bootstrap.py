"""Intervals by resampling: those of ``scipy.stats.bootstrap``, which takes a second to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
BATCH = 100
"""Resamples that are held in memory at a time."""


def percentile_interval(
    data: tuple[Any, ...],
    statistic: Callable[..., Any],
    confidence: float,
    rng: np.random.Generator,
    paired: bool = False,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic (Efron & Tibshirani, *An Introduction to the Bootstrap*, 13).

    Args:
        data: samples ``(n,)``, of which each has its own ``n`` unless they are ``paired``.
        statistic: takes resamples ``(batch, n)`` of each and ``axis``, and gives ``(batch,)``.
        confidence: level of the interval.
        rng: draws the resamples.
        paired: draw the same rows of all samples.
    """
    found = []
    for _ in range(0, RESAMPLES, BATCH):
        rows = [_rows(len(sample), rng) for sample in data[: 1 if paired else None]]
        rows *= len(data) if paired else 1
        found.append(statistic(*(sample[i] for sample, i in zip(data, rows, strict=True)), axis=-1))
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [outside, 1 - outside])
    return float(low), float(high)


def _rows(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(n, size=(BATCH, n))
