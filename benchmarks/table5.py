"""Table 5: lists deployed, one of 32 probed.

python -m benchmarks.table5 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output

LISTS = {"full": (128, 512, 2048), "sample": (32, 128), "quick": (32, 64)}
SHARE = 32
"""One in so many lists is probed."""


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned and ours at each number of lists."""
    out = []
    for nlist in LISTS[e.name]:
        nprobe, factory = nlist // SHARE, e.factory(nlist)
        group = f"{nlist} lists, {nprobe} probed"
        out.append(e.row("untuned", factory, nprobe=nprobe, group=group, baseline=True, x=nlist))
        out.append(e.row("ours", factory, OURS, nprobe=nprobe, group=group, x=nlist))
    return out


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Recall against lists."""
    figure.set_size_inches(11, 3.8)
    for ax, metric in zip(figure.subplots(1, 3), ("overlap_at_10", "recall_at_100", "mrr_at_10"), strict=True):
        output.lines(ax, rows, metric, f"lists, one in {SHARE} probed", lambda row: row.x or 0, base=2)
    figure.axes[0].legend(frameon=False, fontsize=8)


TABLE = Table("table5", f"Lists deployed, one in {SHARE} probed", rows, draw)

if __name__ == "__main__":
    main(TABLE)
