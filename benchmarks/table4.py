"""Table 4: lists probed.

python -m benchmarks.table4 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output
from faiss_distill.config import Encoding, Learn

NEAREST = replace(OURS, encoding=Encoding.NEAREST)
METHODS = {
    "centroids alone, nearest codes": replace(NEAREST, learn=Learn.CENTROIDS),
    "codebooks alone, nearest codes": replace(NEAREST, learn=Learn.CODEBOOKS),
    "both, nearest codes": NEAREST,
    "ours": OURS,
}
"""One tuning each, at the usual number of lists probed."""


def rows(e: Experiment) -> Sequence[Row]:
    """1, 2, 4, ... lists probed, of the same indexes."""
    out = []
    for power in range(0, e.nlist.bit_length(), 2 if e.quick else 1):
        nprobe, group = 2**power, f"{2**power} of {e.nlist} lists probed"
        out.append(e.row("untuned", e.factory(), search_nprobe=nprobe, group=group, baseline=True))
        out += [e.row(name, e.factory(), config, search_nprobe=nprobe, group=group) for name, config in METHODS.items()]
    return out


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Recall against codes scanned."""
    figure.set_size_inches(10, 4)
    for ax, metric in zip(figure.subplots(1, 2), ("overlap_at_10", "mrr_at_10"), strict=True):
        output.lines(ax, rows, metric, output.LABELS["codes_scanned"], lambda row: row.mean("codes_scanned"))
    figure.axes[0].legend(frameon=False, fontsize=8)


COLUMNS = ("overlap_at_10", "recall_at_100", "mrr_at_10", "codes_scanned", "latency_ms")
TABLE = Table("table4", "Lists probed", rows, draw, COLUMNS)

if __name__ == "__main__":
    main(TABLE)
