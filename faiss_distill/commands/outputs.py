"""What several commands do: say something, and see which files they are to write."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from faiss_distill.render.plot import check_plot

WRITTEN = ("output", "plot", "html", "save_parameters", "save_config")
"""Options that are files to write."""


def outputs(args: argparse.Namespace) -> dict[str, Path | None]:
    """The files that a command is to write, by option, once it is known that a plot can be drawn."""
    if args.plot is not None:
        check_plot(args.plot)
    return {name: getattr(args, name, None) for name in WRITTEN}


def say(text: str) -> None:
    """For people, so not on the standard output."""
    print(text, file=sys.stderr)


def own_embeddings(path: str) -> str | None:
    """The file, or None for the index's own."""
    return None if path == "-" else path
