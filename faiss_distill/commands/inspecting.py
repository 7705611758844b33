"""``faiss-distill inspect``, which needs no more than faiss."""

from __future__ import annotations

import argparse

from faiss_distill.commands.outputs import outputs, write_page
from faiss_distill.index.describe import describe
from faiss_distill.index.files import open_with_outputs


def inspect(args: argparse.Namespace) -> None:
    """Show what an index file holds."""
    description = describe(open_with_outputs(args.index, [], outputs(args), force=args.force))
    write_page(description, args)
    print(description.to_json() if args.json else description)
