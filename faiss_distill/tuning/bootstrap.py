"""Percentile bootstrap intervals (Efron & Tibshirani, *An Introduction to the Bootstrap*, 13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def percentile_interval(
    data: tuple[Any, ...],
    statistic: Callable[..., Any],
    confidence: float,
    rng: np.random.Generator,
    paired: bool = False,
) -> tuple[float, float]:
    """The interval of a statistic.

    Args:
        data: samples ``(n,)``, of which each has its own ``n`` unless they are ``paired``.
        statistic: takes resamples ``(batch, n)`` of each and ``axis``, and gives ``(batch,)``.
        confidence: level of the interval.
        rng: draws the resamples.
        paired: draw the same rows of all samples.
    """
    from scipy.stats import bootstrap  # which takes a second to import

    test = bootstrap(
        data, statistic, n_resamples=2000, batch=100, confidence_level=confidence, method="percentile", rng=rng,
        paired=paired, vectorized=True,
    )  # fmt: skip
    low, high = (float(x) for x in test.confidence_interval)
    return low, high
