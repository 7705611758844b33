"""Where plots are drawn: matplotlib, asked for only when a plot is, and without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_distill.errors import InputError, MissingDependencyError

PLOT_FORMATS = (".png", ".svg", ".pdf")


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
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("plot", "matplotlib", "none", "pip install 'faiss-distill[plot]'") from error


def new_figure(panels: int) -> tuple[Any, Any]:
    """A figure without a window, and its axes side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * panels, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def log_axis(ax: Any) -> None:
    """A logarithmic x axis with plain numbers, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
