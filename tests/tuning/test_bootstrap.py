"""Intervals, against scipy's."""

import numpy as np
import pytest
from scipy import stats

from faiss_distill.tuning.bootstrap import percentile_interval


def difference(a, b, axis=-1):
    return a.mean(axis=axis) - b.mean(axis=axis)


def ratio(a, b, axis=-1):
    return a.sum(axis=axis) / b.sum(axis=axis)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    ("sizes", "statistic", "paired"),
    [((70,), np.mean, False), ((2,), np.mean, False), ((70, 41), difference, False), ((50, 50), ratio, True)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_intervals_are_those_of_scipy(sizes, statistic, paired, confidence, dtype):
    """The same resamples; the same but for rounding, since some releases of scipy interpolate in float32."""
    rng = np.random.default_rng(1)
    data = tuple(rng.uniform(0.1, 1, n).astype(dtype) for n in sizes)
    mine, its = np.random.default_rng(7), np.random.default_rng(7)
    low, high = percentile_interval(data, statistic, confidence, mine, paired)
    expected = stats.bootstrap(
        data, statistic, n_resamples=2000, batch=100, confidence_level=confidence, method="percentile", rng=its,
        paired=paired, vectorized=True,
    ).confidence_interval  # fmt: skip
    tolerance = 1e-14 if dtype is np.float64 else 1e-5
    assert (low, high) == pytest.approx(tuple(expected), abs=tolerance)
    assert mine.bit_generator.state == its.bit_generator.state
    assert type(low) is type(high) is float
