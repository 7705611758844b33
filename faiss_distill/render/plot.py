"""Pictures as files: drawn by matplotlib, asked for only when a plot is, and without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError, MissingDependencyError
from faiss_distill.files import replacing
from faiss_distill.render.content import Panel, Picture, Role, Series

PLOT_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Style:
    """How points are drawn.

    Attributes:
        color: of points and line.
        label: where the labels are, and their color if it is not black.
        line: matplotlib's name of a line.
        size: of a point; None for matplotlib's own.
        spaced: whether labels are to the right, where some are left out if they would cover each other.
    """

    color: str
    label: Mapping[str, Any]
    line: str = "-"
    size: float | None = None
    spaced: bool = False


GREY, RED, BESIDE = "0.45", "#c0392b", {"xytext": (5, -5), "va": "top"}
STYLES: dict[Role, Style] = {
    "before": Style(GREY, {"xytext": (0, -14), "ha": "center", "color": GREY}, line="--"),
    "after": Style(RED, {"xytext": (0, 7), "ha": "center", "color": RED}),
    "all": Style("0.7", BESIDE, size=4, spaced=True),
    "front": Style(RED, BESIDE, size=4, spaced=True),
    "won": Style(RED, BESIDE),
    "lost": Style(GREY, BESIDE),
}
INK = "#010203"
"""What text and axes are drawn in, before it is made the color of the page."""


def check_plot(path: str | Path) -> None:
    """Find out before the work whether a plot can be drawn into ``path``.

    Raises:
        InputError: its suffix is none of the :data:`PLOT_FORMATS`, or its folder is not there.
        MissingDependencyError: matplotlib is not installed.
    """
    if Path(path).suffix not in PLOT_FORMATS:
        raise InputError("plot", f"a file ending in {', '.join(PLOT_FORMATS)}", repr(str(path)))
    if not Path(path).parent.is_dir():
        raise InputError("plot", "a folder that exists", repr(str(Path(path).parent)))
    _check_matplotlib("plot")


def _check_matplotlib(name: str) -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(name, "matplotlib", "none", "pip install 'faiss-distill[plot]'") from error


def draw(picture: Picture, path: str | Path) -> None:
    """Draw a picture into ``path``.

    Raises:
        InputError: see :func:`check_plot`.
        MissingDependencyError: matplotlib is not installed.
    """
    check_plot(path)
    figure = _figure(picture)
    with replacing(path) as new:
        figure.savefig(new, dpi=150)


def as_svg(panel: Panel) -> str:
    """A panel as an ``<svg>`` element, whose text and axes have the color of the text around it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    _check_matplotlib("path")
    import matplotlib as mpl

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": panel.y, **ink}):
        written = io.StringIO()
        _figure(Picture([panel])).savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _figure(picture: Picture) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(picture.panels)
    figure = Figure(figsize=(4.5 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)  # without a window
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax, panel in zip(axes, picture.panels, strict=True):
        _draw_panel(ax, panel)
    if any(series.name for series in picture.panels[0].series):
        axes[0].legend(loc="best" if picture.panels[0].log is False else "lower right", frameon=False)
    figure.suptitle(picture.title or picture.caption, fontsize=11 if picture.title else 9)
    return figure


def _draw_panel(ax: Any, panel: Panel) -> None:
    for series in panel.series:
        style = STYLES[series.role]
        line = style.line if series.joined else ""
        if series.drawn == "bars":
            ax.bar(series.x, series.y, 1.0, label=series.name, color=style.color)
            continue
        marker = "o" if series.drawn == "points" else ""
        ax.plot(series.x, series.y, f"{marker}{line}", label=series.name, color=style.color, markersize=style.size)
        if series.within:
            ends = np.abs(np.transpose(series.within) - np.asarray(series.y))
            ax.errorbar(series.x, series.y, yerr=ends, fmt="none", ecolor=style.color, alpha=0.6, capsize=2)
    if panel.log:
        _log_axis(ax)
    else:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=panel.x, ylabel=panel.y)
    ax.margins(x=0.12 if any(STYLES[series.role].spaced for series in panel.series) else None, y=0.12)
    ax.grid(alpha=0.3)
    for series in panel.series:
        _label(ax, series)


def _label(ax: Any, series: Series) -> None:
    style, last = STYLES[series.role], None
    if style.spaced and series.labels:
        ax.figure.draw_without_rendering()  # which settles where points are
    for label, *at in zip(series.labels, series.x, series.y, strict=False):
        pixel = ax.transData.transform(at)
        if not style.spaced or last is None or max(abs(pixel - last)) > 14:  # or the labels would cover each other
            ax.annotate(label, at, textcoords="offset points", fontsize=7, **style.label)
            last = pixel


def _log_axis(ax: Any) -> None:
    """A logarithmic x axis with plain numbers, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
