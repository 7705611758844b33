"""Byte multiplier: how many bytes an untuned index needs for the recall of a tuned one.

python -m benchmarks.multiplier --data DIR

DIR is the full Debian set, or a folder ``words`` or ``wordnet-mpnet``, as ``benchmarks.make_words`` and
``benchmarks.make_wordnet`` make them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.codes import CODES, COLUMNS, with_costs
from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output
from benchmarks.suite.results import tested
from faiss_distill.config import DistillConfig, Effort

TUNED = {
    "full": (8, 16, 32),
    "sample": (8, 16),
    "quick": (8,),
    "words": (8, 16),
    "wordnet-mpnet": (32, 64, 96),
}
"""Bytes of the tuned indexes."""
MULTIPLES = (1, 1.5, 2, 3)
"""Of these, the bytes of the untuned ones."""
MOST = {"full": 64, "words": 48, "wordnet-mpnet": 192}
"""Bytes of an untuned one at most: with 64 segments faiss takes a quarter of an hour of one core to train OPQ."""
THOROUGH = DistillConfig(effort=Effort.THOROUGH)
OTHERS = {
    "full": {8: "RQ x8", 16: "OPQ,PRQ 2x8", 32: "OPQ,PRQ 2x8"},
    "words": {8: "RQ x4fsr", 16: "OPQ,PRQ 2x8"},
}
"""By bytes, the kind of :mod:`benchmarks.codes` to try in place of product codes."""
AHEAD = {"full": (8,)}
"""Bytes at which that kind is ahead by default, so that it is worth an hour of a thorough tuning."""


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned at every size, ours at some."""
    multiples = MULTIPLES if not e.quick else (1, 2)
    wanted = {round(size * multiple) for size in TUNED[e.name] for multiple in multiples}
    sizes = sorted(size for size in wanted if size <= MOST.get(e.name, size))
    out = [e.row("untuned", e.factory(size=size), group=f"{size} bytes", baseline=True, x=size) for size in sizes]
    for name, config in {"ours": OURS, "ours, thorough": THOROUGH}.items():
        for size in TUNED[e.name]:
            out.append(e.row(name, e.factory(size=size), config, group=f"{size} bytes", x=size))
    for size, kind in OTHERS.get(e.name, {}).items():
        factory, group = CODES[kind].factory(e, size), f"{size} bytes"
        out.append(e.row(f"ours, {kind}", factory, OURS, group=group, x=size))
        if size in AHEAD.get(e.name, ()):
            out.append(e.row(f"ours, thorough, {kind}", factory, THOROUGH, group=group, x=size))
    return [with_costs(e, row) for row in sorted(out, key=lambda row: (row.x or 0, not row.baseline))]


def multiplier(rows: Sequence[Row], tuned: Row, metric: str) -> tuple[float, bool]:
    """Bytes that an untuned index needs for the same value, as a multiple, and whether it needs more than that.

    Between two sizes the value is taken to grow linearly in the logarithm of the bytes.
    """
    untuned = sorted((row for row in rows if row.baseline), key=lambda row: row.x or 0)
    values = np.maximum.accumulate([row.mean(metric) for row in untuned])
    bytes_needed = 2 ** np.interp(tuned.mean(metric), values, np.log2([row.x or 0 for row in untuned]))
    return float(bytes_needed / (tuned.x or 1)), bool(tuned.mean(metric) > values[-1])


def conclude(rows: Sequence[Row]) -> str:
    """The multipliers, in words."""
    lines = ["Byte multiplier: bytes of an untuned index with our recall (log-linear between sizes), over ours"]
    for tuned in (row for row in rows if not row.baseline):
        parts = []
        for metric in tested(rows):
            value, beyond = multiplier(rows, tuned, metric)
            parts.append(f"{output.COLUMNS[metric][1]} {'above ' if beyond else ''}{value:.2f}")
        lines.append(f"  {tuned.x:g} bytes, {tuned.name}: " + ", ".join(parts))
    return "\n".join(lines)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Recall against bytes, with the multiplier of what does best."""
    metrics = tested(rows)
    figure.set_size_inches(5 * len(metrics), 4)
    for ax, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        output.lines(ax, rows, metric, "bytes a vector", lambda row: row.x or 0, base=2)
        tuned_rows = [row for row in rows if not row.baseline]
        for size in dict.fromkeys(row.x for row in tuned_rows):
            tuned = max((row for row in tuned_rows if row.x == size), key=lambda row: row.mean(metric))
            value, beyond = multiplier(rows, tuned, metric)
            here, level = tuned.x or 0, tuned.mean(metric)
            ax.plot([here, here * value], [level, level], ":", color=output.COLORS["ours"], lw=1)
            label = f"{'> ' if beyond else ''}{value:.2f} ×"
            middle = here * value**0.5, level
            ax.annotate(label, middle, (0, 3), textcoords="offset points", fontsize=8, ha="center")
        ax.tick_params(axis="x", labelsize=7)
    figure.axes[0].legend(frameon=False, fontsize=8)


TABLE = Table("multiplier", "Byte multiplier", rows, draw, COLUMNS, conclude)

if __name__ == "__main__":
    main(TABLE)
