"""Rows of a table: means over seeds, their spread, and whether a difference is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.suite.measure import Measured

TESTED = ("overlap_at_10", "mrr_at_10")
"""Metrics that are compared, where they are known."""
LEVEL = 0.01


@dataclass(frozen=True)
class Row:
    """One method at one setting.

    Attributes:
        name: of the method.
        runs: one for each seed; only one where nothing is random, none if it could not be run.
        group: rows are compared with the baselines of their own group.
        baseline: whether it is one of the rows that the others are compared with.
        settings: what it was made with.
        details: of each run, such as the seconds of its phases.
        x: where a plot over some size has it.
        missing: why there are no runs.
    """

    name: str
    runs: tuple[Measured, ...]
    group: str = ""
    baseline: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    details: tuple[dict[str, Any], ...] = ()
    x: float | None = None
    missing: str = ""

    def values(self, name: str) -> list[float]:
        """A metric's mean over queries, a cost, or a number of ``details``, for each run; empty if unknown."""
        if name in ("codes_scanned", "latency_ms"):
            found = [getattr(run, name) for run in self.runs]
        elif self.runs and name in self.runs[0].scores:
            found = [float(run.scores[name].mean(dtype=np.float64)) for run in self.runs]
        else:
            found = [detail.get(name) for detail in self.details]
        return [] if None in found else found

    def mean(self, name: str) -> float:
        """Mean over runs, NaN if unknown."""
        return mean_half_range(self.values(name))[0]

    def per_query(self, metric: str) -> NDArray[np.float64]:
        """The metric of each query, mean over runs."""
        return np.asarray(np.mean([run.scores[metric] for run in self.runs], axis=0, dtype=np.float64))


@dataclass(frozen=True)
class Comparison:
    """A row against the strongest baseline of its group, in one metric.

    Attributes:
        baseline: its name.
        difference: row minus baseline, mean over queries.
        p: of a paired t-test over queries.
    """

    baseline: str
    difference: float
    p: float

    @property
    def mark(self) -> str:
        """``*`` if the row is better beyond chance, ``†`` if worse."""
        if not self.p < LEVEL:
            return ""
        return "*" if self.difference > 0 else "†"


def mean_half_range(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the range; NaN of nothing.

    Examples:
        >>> mean_half_range([1.0, 2.0, 4.0])
        (2.3333333333333335, 1.5)
    """
    if not values:
        return float("nan"), float("nan")
    return float(np.mean(values)), (max(values) - min(values)) / 2


def paired_p(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Two-sided p of a paired t-test; 1 if all pairs are the same."""
    difference = ours - theirs
    if np.ptp(difference) == 0:  # no variance: the test is undefined
        return 1.0 if difference[0] == 0 else 0.0
    return float(stats.ttest_rel(ours, theirs).pvalue)


def tested(rows: Sequence[Row]) -> list[str]:
    """Those of :data:`TESTED` that the rows have: the second needs labels."""
    return [metric for metric in TESTED if any(metric in run.scores for row in rows for run in row.runs)]


def compare(rows: Sequence[Row]) -> list[dict[str, Comparison]]:
    """For each row that is no baseline, each tested metric against its group's strongest baseline in that metric."""
    out = []
    for row in rows:
        rivals = [r for r in rows if r.baseline and r.runs and r.group == row.group]
        found: dict[str, Comparison] = {}
        if row.runs and rivals and not row.baseline:
            for metric in tested(rows):
                best = max(rivals, key=lambda r: r.mean(metric))
                ours, theirs = row.per_query(metric), best.per_query(metric)
                found[metric] = Comparison(best.name, float(np.mean(ours - theirs)), paired_p(ours, theirs))
        out.append(found)
    return out
