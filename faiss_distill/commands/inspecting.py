"""``faiss-distill inspect``, which needs no more than faiss."""

from __future__ import annotations

import argparse

from faiss_distill.index.describe import describe
from faiss_distill.index.files import read_index


def inspect(args: argparse.Namespace) -> None:
    """Show what an index file holds."""
    description = describe(read_index(args.index))
    print(description.to_json() if args.json else description)
