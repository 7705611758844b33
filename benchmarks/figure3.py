"""Figure 3: recall against bytes and against latency.

python -m benchmarks.figure3 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks import table6
from benchmarks.methods import OURS, PUBLISHED
from benchmarks.suite import Experiment, Row, Table, main, output

METRICS = ("overlap_at_10", "mrr_at_10")


def rows(e: Experiment) -> Sequence[Row]:
    """Those of table 6, then a sweep over lists probed at the usual bytes."""
    out = list(table6.rows(e))
    for power in range(0, e.nlist.bit_length() - 1, 2 if e.quick else 1):  # all lists: off the scale
        nprobe, group = 2**power, f"{2**power} of {e.nlist} lists probed"
        for name, config in (("IVFOPQ", None), ("Distill-VQ as published", PUBLISHED), ("ours", OURS)):
            baseline = name != "ours"
            out.append(e.row(name, e.factory(), config, search_nprobe=nprobe, group=group, baseline=baseline))
    return out


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Above against bytes, below against latency."""
    figure.set_size_inches(10, 7.5)
    by_bytes, sweep = [row for row in rows if row.x], [row for row in rows if not row.x]
    for (above, below), metric in zip(figure.subplots(2, 2).T, METRICS, strict=True):
        output.lines(above, by_bytes, metric, "bytes a vector", lambda row: row.x or 0, base=2)
        output.lines(below, sweep, metric, output.LABELS["latency_ms"], lambda row: row.mean("latency_ms"))
    figure.axes[0].legend(frameon=False, fontsize=8)


TABLE = Table("figure3", "Recall against bytes and against latency", rows, draw)

if __name__ == "__main__":
    main(TABLE)
