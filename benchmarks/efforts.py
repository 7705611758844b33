"""What each effort gains, and the time that it takes.

python -m benchmarks.efforts [--data DIR]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from benchmarks.suite import Experiment, Row, Table, main
from faiss_distill.config import DistillConfig, Effort


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned, and each effort, for both metrics."""
    out = []
    for name, data in (("inner product", e), ("L2", e.variant(metric="l2"))):
        group = f"{name}; {e.factory()}; nprobe {e.nprobe}"
        out.append(data.row("untuned", e.factory(), group=group, baseline=True))
        for effort in Effort:
            out.append(data.row(f"ours, {effort.value}", e.factory(), DistillConfig(effort=effort), group=group))
    return out


def seconds(row: Row) -> float:
    """What a tuning took, the median of the seeds."""
    return float(np.median([detail["seconds"]["total"] for detail in row.details]))


def conclude(rows: Sequence[Row]) -> str:
    """The time that each took."""
    lines = ["Seconds of a tuning (median of the seeds), beside faiss's build; all of it: teacher, checks, judging"]
    for group, members in groupby(rows, key=lambda row: row.group):
        untuned, *tuned = members
        spent = ", ".join(f"{row.name.removeprefix('ours, ')} {seconds(row):.0f}" for row in tuned)
        lines.append(f"  {group}: build {untuned.settings['build_seconds']:.0f}, {spent}")
    return "\n".join(lines)


TABLE = Table("efforts", "Effort", rows, conclude=conclude)

if __name__ == "__main__":
    main(TABLE)
