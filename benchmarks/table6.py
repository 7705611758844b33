"""Table 6: bytes of a code.

python -m benchmarks.table6 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.methods import OURS, PEERS
from benchmarks.suite import Experiment, Row, Table, main, output

BYTES = {"full": (2, 4, 8, 16, 32), "sample": (4, 8, 16), "quick": (4, 8)}


def rows(e: Experiment) -> Sequence[Row]:
    """The methods at each size; ours against the strongest of the others."""
    out = []
    for size in BYTES[e.name]:
        factory, group = e.factory(size=size), f"{size} bytes"
        out.append(e.row("IVFOPQ", factory, group=group, baseline=True, x=size))
        out += [e.row(name, factory, config, group=group, baseline=True, x=size) for name, config in PEERS.items()]
        out.append(e.row("ours", factory, OURS, group=group, x=size))
    return out


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Recall against bytes."""
    figure.set_size_inches(10, 4)
    for ax, metric in zip(figure.subplots(1, 2), ("overlap_at_10", "mrr_at_10"), strict=True):
        output.lines(ax, rows, metric, "bytes a vector", lambda row: row.x or 0, base=2)
    figure.axes[0].legend(frameon=False, fontsize=8)


TABLE = Table("table6", "Bytes of a code", rows, draw)

if __name__ == "__main__":
    main(TABLE)
