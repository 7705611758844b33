"""What several commands do: say something, and see which files they are to write."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from faiss_distill.render.plot import check_plot
from faiss_distill.render.result import Result

WRITTEN = ("output", "plot", "html", "save_parameters", "save_config")
"""Options that are files to write."""


def outputs(args: argparse.Namespace) -> dict[str, Path | None]:
    """The files that a command is to write, by option, once it is known that a plot can be drawn."""
    plot = getattr(args, "plot", None)
    if plot is not None:
        check_plot(plot)
    return {name: getattr(args, name, None) for name in WRITTEN}


def write_page(result: Result, args: argparse.Namespace) -> None:
    """Write a result as a page, if that was asked for."""
    if args.html is not None:
        result.to_html(args.html)
        say(f"wrote the page to {args.html}")


def say(text: str) -> None:
    """For people, so not on the standard output."""
    print(text, file=sys.stderr)


def own_embeddings(path: str) -> str | None:
    """The file, or None for the index's own."""
    return None if path == "-" else path
