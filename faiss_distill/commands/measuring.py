"""``faiss-distill eval`` and ``points``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from faiss_distill import OperatingPoints
from faiss_distill.api import evaluate, operating_points
from faiss_distill.commands.outputs import outputs, own_embeddings, say, write_page
from faiss_distill.errors import InputError
from faiss_distill.evaluation.operating_points import share
from faiss_distill.index.files import open_with_outputs, write_index
from faiss_distill.index.search_parameters import ranges


def evaluation(args: argparse.Namespace) -> None:
    """Measure an index file against exact search."""
    given = [args.embeddings, args.queries, args.ids, args.relevant]
    index = open_with_outputs(args.index, given, outputs(args), force=args.force)
    result = evaluate(
        index,
        own_embeddings(args.embeddings),
        args.queries,
        ids=args.ids,
        relevant=args.relevant,
        nprobe=args.nprobe,
        top_k=min(100, index.ntotal),
    )
    write_page(result, args)
    print(result.to_json() if args.json else result)


def points(args: argparse.Namespace) -> None:
    """Find the parameters to search with."""
    given = [args.embeddings, args.queries, args.ids, args.relevant]
    if args.output is not None and args.at_least is None:
        raise InputError("output", "it with --at-least, which says what to set", "it without")
    if args.at_least is not None:
        share("at_least", args.at_least)
    index = open_with_outputs(args.index, given, outputs(args), force=args.force)
    found = _explored(args, index)
    if args.plot is not None:
        found.plot(args.plot)
        say(f"wrote the plot to {args.plot}")
    write_page(found, args)
    print(found.to_json() if args.json else found)
    if args.at_least is not None:
        point = found.cheapest(args.at_least)
        best = f"{found.title} {getattr(point, args.quality):.3f}"
        cheapest = f"cheapest of at least {args.at_least:g}: {best} with {point.parameters or 'the index as it is'}"
        (say if args.json else print)(f"\n{cheapest}")
    if args.output is not None:
        found.set_on(index, args.at_least)
        write_index(index, args.output)
        say(f"wrote {args.output}")


def _explored(args: argparse.Namespace, index: Any) -> OperatingPoints:
    try:
        return operating_points(
            index,
            own_embeddings(args.embeddings),
            args.queries,
            ids=args.ids,
            relevant=args.relevant,
            parameters=None if args.nprobe is None else ranges(index) | {"nprobe": args.nprobe},
            quality=args.quality,
            cost=args.cost,
            top_k=min(100, index.ntotal),
        )
    except InputError as error:
        if error.argument == "parameters":  # of which --nprobe alone comes from the command line
            raise replace(error, argument="nprobe") from error
        raise
