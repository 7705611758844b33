"""Product and additive codes, of 8 and of 4 bits, at equal bytes: what each is worth, untuned and tuned, and its cost.

    python -m benchmarks.codes               # the packaged sample
    python -m benchmarks.codes --data DIR    # the full set, or one like it
    python -m benchmarks.codes --quick       # a part of the sample, 8 bytes

Bytes are given twice: those of a code, and with a share of codebooks and rotation, which all vectors have in common.
Residual quantizers over whole vectors with 8 bits are left out where they would take hours (``RQ_TO``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import faiss
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output
from benchmarks.suite.results import LEVEL, TESTED, paired_p
from faiss_distill.index.describe import parts

SIZES = {"full": (4, 8, 16, 32), "sample": (4, 8, 16, 32), "quick": (8,)}
"""Bytes of a code. With 64 and 128 segments, as 64 bytes have, faiss takes OPQ up to an hour of one core to train."""
RQ_TO = 8
"""Bytes up to which there is an 8-bit residual quantizer of whole vectors: with 16 codebooks of 256 codewords of all
dimensions, a search takes a hundred times as long as with 4 bits, and training and tuning as many minutes."""
RQ4_TO = 16
"""The same with 4 bits."""
YARDSTICK = "OPQ,PQ x8"
"""What the others are compared with, at equal bytes."""


@dataclass(frozen=True)
class Code:
    """A kind of code.

    Attributes:
        codes: the end of its factory string, for a number of bytes.
        rotated: for a number of bytes, parts of vectors that a rotation before it evens out; None without one.
        up_to: most bytes to try.
    """

    codes: Callable[[int], str]
    rotated: Callable[[int], int] | None = None
    up_to: int = 64

    def factory(self, e: Experiment, size: int) -> str:
        """Of an index with lists."""
        plain = f"IVF{e.nlist},{self.codes(size)}"
        if self.rotated is None:
            return plain
        m, d = self.rotated(size), e.data.documents.shape[1]
        return f"OPQ{m}{f'_{m * math.ceil(d / m)}' if d % m else ''},{plain}"


CODES = {
    YARDSTICK: Code("PQ{0}np".format, lambda size: size),
    "OPQ,PQ x4fsr": Code(lambda size: f"PQ{2 * size}x4fsr", lambda size: 2 * size),
    "RQ x8": Code("RQ{0}x8".format, up_to=RQ_TO),
    "OPQ,PRQ 2x8": Code(lambda size: f"PRQ{size // 2}x2x8", lambda size: size // 2),
    "RQ x4fsr": Code(lambda size: f"RQ{2 * size}x4fsr", up_to=RQ4_TO),
    "OPQ,PRQ 4x4fsr": Code(lambda size: f"PRQ{size // 2}x4x4fsr", lambda size: size // 2),
}
"""Kinds of codes. PRQ has two bytes for each part of a vector: two codewords of 8 bits, or four of 4."""
QUICK = (YARDSTICK, "RQ x4fsr")
COLUMNS = (
    "code_bytes", "all_bytes", "overlap_at_10", "recall_at_100", "mrr_at_10", "codes_scanned", "latency_ms",
    "build_s", "tune_s",
)  # fmt: skip


def rows(e: Experiment) -> Sequence[Row]:
    """Each code, untuned and tuned, size by size."""
    out = []
    for size in SIZES[e.name]:
        group = f"{size} bytes"
        for name in QUICK if e.quick else CODES:
            if size <= CODES[name].up_to:
                factory = CODES[name].factory(e, size)
                yardstick = name == YARDSTICK
                untuned = e.row(name, factory, group=group, baseline=yardstick, x=size)
                for row in (untuned, e.row(f"{name}, ours", factory, OURS, group=group, x=size)):
                    out.append(with_costs(e, row))
    return out


def with_costs(e: Experiment, row: Row) -> Row:
    """The same row, with its bytes and seconds."""
    index: Any = faiss.deserialize_index(e.build(row.settings["factory"])[0])
    _, each, shared = parts(index)
    of_codes = sum(shared.get(name, 0) for name in ("codebooks", "transforms"))
    costs = {
        "code_bytes": each["codes"],
        "all_bytes": each["codes"] + of_codes / index.ntotal,
        "build_s": row.settings["build_seconds"],
    }
    details = [d | {"tune_s": d["seconds"]["total"]} for d in row.details] or [{}]
    return replace(row, details=tuple(d | costs for d in details))


def conclude(rows: Sequence[Row]) -> str:
    """Tuned against tuned, in words."""
    lines = [f"Each code, tuned, minus {YARDSTICK}, tuned, of as many bytes (* † as above):"]
    for group in dict.fromkeys(row.group for row in rows):
        tuned = [row for row in rows if row.group == group and row.name.endswith(", ours")]
        yardstick = tuned[0]
        lines.append(group)
        for row in tuned[1:]:
            found = []
            for metric in TESTED:
                ours, theirs = row.per_query(metric), yardstick.per_query(metric)
                difference = float(np.mean(ours - theirs))
                mark = ("*" if difference > 0 else "†") if paired_p(ours, theirs) < LEVEL else " "
                found.append(f"{output.COLUMNS[metric][1]} {difference:+.3f}{mark}")
            slower = row.mean("latency_ms") / yardstick.mean("latency_ms")
            lines.append(f"  {row.name:22} {'  '.join(found)}  {slower:.2f} of its ms/query")
    return "\n".join(lines)


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Both metrics against bytes of a code, bytes with codebooks, and time; untuned dashed."""
    figure.set_size_inches(13, 7)
    panels = figure.subplots(len(TESTED), 3, sharey="row")
    axes = (
        ("code_bytes", "bytes of a code"),
        ("all_bytes", "bytes, with codebooks and rotation"),
        ("latency_ms", output.LABELS["latency_ms"]),
    )
    names = list(dict.fromkeys(row.name.removesuffix(", ours") for row in rows))
    colors = {name: matplotlib.colormaps["tab10"](number) for number, name in enumerate(names)}
    for line, metric in zip(panels, TESTED, strict=True):
        for ax, (x, label) in zip(line, axes, strict=True):
            for name, tuned in ((name, tuned) for name in names for tuned in (False, True)):
                members = [row for row in rows if row.name == f"{name}{', ours' if tuned else ''}"]
                places, heights = [row.mean(x) for row in members], [row.mean(metric) for row in members]
                style = {"ls": "-", "marker": "o", "lw": 1.4} if tuned else {"ls": "--", "marker": ".", "lw": 0.7}
                ax.plot(places, heights, color=colors[name], ms=4, **style)
            ax.set_xscale("log", base=10 if x == "latency_ms" else 2)
            ax.xaxis.set_major_formatter("{x:.3g}")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlabel(label, fontsize=8)
            ax.tick_params(labelsize=7)
            ax.grid(alpha=0.3)
        line[0].set_ylabel(output.LABELS[metric], fontsize=8)
    handles = [Line2D([], [], color=colors[name], label=name) for name in names]
    for label, dashes in (("tuned", "-"), ("untuned", "--")):
        handles.append(Line2D([], [], color="0.3", ls=dashes, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=8, frameon=False)


TABLE = Table("codes", "Product and additive codes at equal bytes", rows, draw, COLUMNS, conclude)

if __name__ == "__main__":
    main(TABLE)
