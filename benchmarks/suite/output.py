"""A table as text, as JSON and as a plot."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

import faiss
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.suite.experiment import Experiment
from benchmarks.suite.results import LEVEL, TESTED, Comparison, Row, mean_half_range, tested

COLUMNS = {
    "overlap_at_10": ("exact", "overlap@10", ".3f"),
    "nearest_in_10": ("exact", "nearest in 10", ".3f"),
    "recall_at_100": ("exact", "recall@100", ".3f"),
    "mrr_at_10": ("labels", "MRR@10", ".3f"),
    "label_recall_at_10": ("labels", "recall@10", ".3f"),
    "label_recall_at_100": ("labels", "recall@100", ".3f"),
    "codes_scanned": ("cost", "codes", ".0f"),
    "latency_ms": ("cost", "ms/query", ".3f"),
    "best_epoch": ("cost", "epoch", ".1f"),
}
"""Of each figure: the axis that it is on, its title, its format."""
DETAILS = {
    "code_bytes": ("bytes", "code", ".0f"),
    "all_bytes": ("bytes", "all", ".1f"),
    "build_s": ("cost", "build s", ".0f"),
    "tune_s": ("cost", "tune s", ".0f"),
}
"""The same of figures that some tables put into the details of their rows."""
TITLES = COLUMNS | DETAILS
AXES = {"exact": "exact Top-10", "labels": "labels", "cost": "cost", "bytes": "bytes"}
LABELS = {
    "overlap_at_10": "overlap@10 with the exact top 10",
    "recall_at_100": "share of the exact top 10 in the first 100",
    "mrr_at_10": "MRR@10 against labels",
    "codes_scanned": "codes scanned a query",
    "latency_ms": "milliseconds a query",
}
COLORS = {
    "ours": "#c0392b",
    "untuned": "#7f7f7f",
    "IVFOPQ": "#7f7f7f",
    "IVFPQ": "#b5b5b5",
    "ScaNN": "#8c6d31",
    "ScaNN, not anisotropic": "#c49c5c",
    "contrastive": "#1f77b4",
    "reconstruction": "#2ca02c",
    "Distill-VQ as published": "#ff9f1c",
}

OTHERS = ("#1f77b4", "#2ca02c", "#9467bd", "#8c6d31")
"""For names that have no color of their own."""


def environment() -> dict[str, Any]:
    """Versions and threads."""
    versions = {}
    for name in ("numpy", "scipy", "torch", "faiss-cpu", "scann", "faiss-distill"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        **versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "faiss_threads": faiss.omp_get_max_threads(),
        "torch_threads": torch.get_num_threads(),
    }


def text(
    title: str, rows: Sequence[Row], compared: Sequence[dict[str, Comparison]], columns: Sequence[str], e: Experiment
) -> str:
    """An aligned table with its notes, without columns that no row has anything in."""
    columns = [column for column in columns if any(row.values(column) for row in rows)]
    cells = [[row.name, *(cell(row, c, found) for c in columns)] for row, found in zip(rows, compared, strict=True)]
    heads = ["", *(TITLES[c][1] for c in columns)]
    widths = [max(len(line[i].rstrip()) for line in [heads, *cells]) for i in range(len(heads))]
    lines = [title, "", _axes_line(columns, widths), _line(heads, widths)]
    lines.append("-" * len(lines[-1]))
    for group, members in groupby(range(len(rows)), key=lambda i: rows[i].group):
        lines += ["", group] if group else []
        lines += [_line(cells[i], widths) for i in members]
    return "\n".join(line.rstrip() for line in [*lines, "", *notes(rows, compared, e)]) + "\n"


def cell(row: Row, column: str, found: dict[str, Comparison]) -> str:
    """``mean ±half range``, with the mark of a difference beyond chance."""
    if row.missing:
        return row.missing if column == "overlap_at_10" else ""
    values = row.values(column)
    if not values:
        return "-"
    axis, _, form = TITLES[column]
    mean, half = mean_half_range(values)
    spread = f" ±{half:{form}}" if len(values) > 1 and axis not in ("cost", "bytes") else ""
    mark = found[column].mark if column in found else ""
    return f"{mean:{form}}{spread}{mark or (' ' if column in TESTED else '')}"


def notes(rows: Sequence[Row], compared: Sequence[dict[str, Comparison]], e: Experiment) -> list[str]:
    """What a reader needs to judge the figures."""
    data, threads = e.data, faiss.omp_get_max_threads()
    out = [
        f"Data: {e.name}, {len(data.documents)} documents, {data.train.stop - data.train.start} training and "
        f"{len(e.queries.vectors)} test queries; inner product unless said otherwise.",
        "recall@100 against the exact Top-10: their share among the first 100 found. codes: scanned a query.",
        f"ms/query: one batch, best of 3 to 10, {threads} thread{'s' if threads > 1 else ''}. epoch: the one kept,",
        "chosen on held-out queries. The never-worse gate is off: losses show.",
    ]
    if any(len(row.runs) > 1 for row in rows):
        out.append(f"Mean of seeds 0 to {e.seeds[-1]} ± half their range; a row without ± has nothing random.")
    names = {metric: sorted({c[metric].baseline for c in compared if c}) for metric in tested(rows)}
    if any(names.values()):
        out += [
            f"* better, † worse than the strongest baseline of its part, paired t-test over queries, p < {LEVEL}:",
            *(f"  {COLUMNS[metric][1]}: {' or '.join(found)}" for metric, found in names.items()),
        ]
    return out


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
    return "  ".join([first, *others])


def _axes_line(columns: Sequence[str], widths: Sequence[int]) -> str:
    out = " " * widths[0]
    for axis, members in groupby(zip(columns, widths[1:], strict=True), key=lambda pair: TITLES[pair[0]][0]):
        width = sum(w + 2 for _, w in members)
        out += "  " + AXES[axis].center(width - 2, "-")
    return out


def to_dict(
    title: str, rows: Sequence[Row], compared: Sequence[dict[str, Comparison]], e: Experiment
) -> dict[str, Any]:
    """Everything as plain Python."""
    data = e.data
    return {
        "title": title,
        "data": {
            "name": e.name,
            "documents": len(data.documents),
            "train": data.train.stop - data.train.start,
            "validation": data.validation.stop - data.validation.start,
            "test": data.test.stop - data.test.start,
        },
        "seeds": list(e.seeds),
        "environment": environment(),
        "rows": [
            {
                "name": row.name,
                "group": row.group,
                "baseline": row.baseline,
                "x": row.x,
                **({"missing": row.missing} if row.missing else {}),
                "settings": row.settings,
                "mean": {c: _number(row.mean(c)) for c in COLUMNS},
                "half_range": {c: _number(mean_half_range(row.values(c))[1]) for c in COLUMNS},
                "runs": {c: row.values(c) for c in COLUMNS},
                "against": {metric: asdict(c) for metric, c in found.items()},
                "details": row.details,
            }
            for row, found in zip(rows, compared, strict=True)
        ],
    }


def _number(x: float) -> float | None:
    return None if math.isnan(x) else x


def write(folder: Path, name: str, written: str, content: dict[str, Any], draw: Callable[[Figure], None]) -> None:
    """``name.txt``, ``name.json`` and ``name.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text(written, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(folder / f"{name}.png", dpi=150)


def dots(figure: Figure, rows: Sequence[Row]) -> None:
    """One dot a row, in a panel for each metric; whiskers are half ranges. The axes need not begin at 0."""
    shown, metrics = [row for row in rows if row.runs], tested(rows)
    figure.set_size_inches(4.6 * len(metrics) + 1.5, 0.32 * len(shown) + 1.3)
    groups = list(dict.fromkeys(row.group for row in shown))
    places = [i + 0.8 * groups.index(row.group) for i, row in enumerate(shown)]
    for ax, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        for row, place in zip(shown, places, strict=True):
            mean, half = mean_half_range(row.values(metric))
            color = COLORS["ours"] if "ours" in row.name else COLORS.get(row.name, "0.35")
            ax.errorbar(mean, place, xerr=half, fmt="o", ms=6, capsize=3, color=color)
            ax.annotate(
                f"{mean:.3f}", (mean + half, place), (8, 0), textcoords="offset points", va="center", fontsize=7
            )
        for group in filter(None, groups):
            place = places[[row.group for row in shown].index(group)] - 0.75
            ax.text(0.01, place, group, transform=ax.get_yaxis_transform(), va="center", fontsize=8, style="italic")
        ax.set_xlabel(LABELS[metric], fontsize=9)
        ax.margins(x=0.14)
        ax.set_ylim(places[0] - (1.2 if shown[0].group else 0.6), places[-1] + 0.6)
        ax.set_yticks(places, [row.name for row in shown], fontsize=8)
        ax.tick_params(axis="x", labelsize=8)
        ax.grid(alpha=0.3)
    ax.invert_yaxis()


def lines(
    ax: Axes, rows: Sequence[Row], metric: str, xlabel: str, x: Callable[[Row], float], base: int | None = None
) -> None:
    """A line for each method over its rows; whiskers are half ranges.

    Args:
        ax: where to draw.
        rows: any; those of one name make a line.
        metric: on the y axis.
        xlabel: label of the x axis, which is logarithmic.
        x: where a row lies.
        base: if given, ticks are the values themselves, powers of it.
    """
    for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
        members = sorted((row for row in rows if row.name == name and row.runs), key=x)
        spans = [mean_half_range(row.values(metric)) for row in members]
        style = "o--" if name in ("untuned", "IVFPQ", "IVFOPQ") else "o-"
        color = COLORS.get(name, OTHERS[number % len(OTHERS)])
        places = [x(row) for row in members]
        ax.errorbar(
            places,
            [m for m, _ in spans],
            [h for _, h in spans],
            fmt=style,
            ms=4,
            lw=1.4,
            capsize=2,
            label=name,
            color=color,
        )
    ax.set(xlabel=xlabel, ylabel=LABELS[metric])
    if base:
        ax.set_xscale("log", base=base)
        ticks = sorted({x(row) for row in rows})
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    else:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v < 1000 else f"{v / 1000:g}k"))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(alpha=0.3)
