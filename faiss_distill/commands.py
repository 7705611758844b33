"""What each command of the command line does, with everything that it needs: torch, faiss and scipy."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import faiss

from faiss_distill import DistillConfig, DistillTrainer, OperatingPoints, TunedParameters, describe
from faiss_distill.api import evaluate, operating_points
from faiss_distill.building.build import fill
from faiss_distill.building.estimates import duration, training_seconds, tuning_seconds
from faiss_distill.building.factory import index_factory
from faiss_distill.checks import integer
from faiss_distill.config import Encoding
from faiss_distill.data.samples import load_debian_packages
from faiss_distill.data.vectors import open_vectors
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import compared
from faiss_distill.evaluation.operating_points import share
from faiss_distill.files import sweep
from faiss_distill.index.files import (
    check_apart,
    check_output,
    new_lists,
    open_with_outputs,
    read_index,
    write_index,
)
from faiss_distill.index.lists_file import new_lists_file
from faiss_distill.index.registry import open_index
from faiss_distill.index.search_parameters import ranges
from faiss_distill.messages import in_flags
from faiss_distill.render.content import Section
from faiss_distill.render.plot import check_plot, draw
from faiss_distill.render.result import as_json
from faiss_distill.render.table import as_text
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.report import curves
from faiss_distill.tuning.settle import settle
from faiss_distill.workdir import open_workdir
from faiss_distill.world import joined, open_world

DEMO_FILES = {
    "tuned.faiss": "the index",
    "report.json": "the report",
    "test.json": "the test queries, before and after",
    "recall.png": "the plot, recall against codes scanned",
}


def tune(args: argparse.Namespace) -> None:
    """Fine-tune an index file."""
    config = DistillConfig(**{f.name: getattr(args, f.name) for f in fields(DistillConfig) if hasattr(args, f.name)})
    labels = {"relevant": args.relevant, "validation_relevant": args.validation_relevant}
    _tuned(args, config, queries=args.queries, validation_queries=args.validation_queries, **labels)


def apply(args: argparse.Namespace) -> None:
    """Put what was learned into another index file."""
    parameters = TunedParameters.load(args.parameters)
    asked = {"queries": parameters.queries, "validation_queries": parameters.validation_queries}
    options = {"device": args.device, "progress": args.progress}
    options |= {} if args.nprobe is None else {"nprobe": args.nprobe}
    _tuned(args, parameters.options(**options), parameters, **asked)


def add(args: argparse.Namespace) -> None:
    """Add later vectors to an index file that holds what was learned."""
    parameters = TunedParameters.load(args.parameters)
    options = {"device": args.device, "progress": args.progress}
    files = [args.embeddings, args.ids, args.parameters]
    index, placed = _opened_to_tune(args, parameters.options(**options, encoding=Encoding.NEAREST), files)
    with new_lists(placed) as lists:
        made = None if lists is None else lists.made
        report = parameters.add(index, args.embeddings, ids=args.ids, invlists_file=made, **options)
        write_index(index, args.output, lists)
    print(report.to_json() if args.json else f"{in_flags(str(report), args)}\nwrote {args.output}")
    if lists is not None:
        _say(f"the inverted lists are in {lists.placed}, which {args.output} refers to")


def _tuned(
    args: argparse.Namespace, config: DistillConfig, parameters: TunedParameters | None = None, **given: Any
) -> None:
    """Tune the index in INDEX, alone or along with other processes, and write it to OUT."""
    files = [args.embeddings, args.ids, args.teacher, *([args.parameters] if parameters else given.values())]
    with joined(config.device) as group, ExitStack() as made:
        world = open_world(group)
        with world.together():
            if world.main:
                index, placed = _opened_to_tune(args, config, files)
                lists = made.enter_context(new_lists(placed))
            else:
                index, lists = read_index(args.index), None
        trainer = DistillTrainer(
            index,
            _embeddings(args.embeddings),
            ids=args.ids,
            teacher=args.teacher,
            invlists_file=None if lists is None else lists.made,
            group=group,
            workdir=args.workdir,
            resume=True,
            parameters=parameters,
            gate=Gate(decides=not getattr(args, "keep", False)),
            config=config,
            **given,
        )
        report = trainer.train()
        if not world.main:
            return
        write_index(index, args.output, lists)
        saved = getattr(args, "save_parameters", None)
        if saved is not None and report.parameters is not None:
            report.parameters.save(saved)
        with open_workdir(args.workdir) as workdir:
            workdir.clear()
    if args.plot is not None:
        report.plot(args.plot)
    if args.html is not None:
        report.to_html(args.html)
    print(report.to_json() if args.json else f"{in_flags(str(report), args)}\n{_wrote(args, report.kept)}")
    if lists is not None and report.kept:
        _say(f"the inverted lists are in {lists.placed}, which {args.output} refers to")
    own = open_index(index).nprobe
    if own != report.before.own_nprobe:
        _say(f"judged at nprobe {report.before.own_nprobe}; the file keeps its nprobe of {own}: set it when you search")


def _wrote(args: argparse.Namespace, kept: bool) -> str:
    more = {"plot": args.plot, "page": args.html}
    also = "".join(f", and the {what} to {path}" for what, path in more.items() if path is not None)
    return f"wrote {args.output}{'' if kept else ', unchanged: the index as it was'}{also}"


def _opened_to_tune(
    args: argparse.Namespace, config: DistillConfig, given: list[str | None]
) -> tuple[Any, Path | None]:
    """The index, and where new inverted lists are to be, once it is known that all outputs can be written."""
    outputs = _outputs(args)
    index = open_with_outputs(args.index, given, outputs, args.invlists_file, args.force)
    adapter = open_index(index)
    frozen = settle(config, adapter).encoding is Encoding.FROZEN
    placed = new_lists_file(adapter, args.invlists_file, frozen)
    check_apart(outputs, placed)
    return index, placed


def _outputs(args: argparse.Namespace) -> dict[str, Path | None]:
    if args.plot is not None:
        check_plot(args.plot)
    return {name: getattr(args, name, None) for name in ("output", "plot", "html", "save_parameters")}


def evaluation(args: argparse.Namespace) -> None:
    """Measure an index file against exact search."""
    index = read_index(args.index)
    result = evaluate(
        index,
        _embeddings(args.embeddings),
        args.queries,
        ids=args.ids,
        relevant=args.relevant,
        nprobe=args.nprobe,
        top_k=min(100, index.ntotal),
    )
    print(result.to_json() if args.json else result)


def points(args: argparse.Namespace) -> None:
    """Find the parameters to search with."""
    given = [args.embeddings, args.queries, args.ids, args.relevant]
    if args.output is not None and args.at_least is None:
        raise InputError("output", "it with --at-least, which says what to set", "it without")
    if args.at_least is not None:
        share("at_least", args.at_least)
    index = open_with_outputs(args.index, given, _outputs(args), force=args.force)
    found = _explored(args, index)
    if args.plot is not None:
        found.plot(args.plot)
        _say(f"wrote the plot to {args.plot}")
    if args.html is not None:
        found.to_html(args.html)
        _say(f"wrote the page to {args.html}")
    print(found.to_json() if args.json else found)
    if args.at_least is not None:
        point = found.cheapest(args.at_least)
        best = f"{found.title} {getattr(point, args.quality):.3f}"
        cheapest = f"cheapest of at least {args.at_least:g}: {best} with {point.parameters or 'the index as it is'}"
        (_say if args.json else print)(f"\n{cheapest}")
    if args.output is not None:
        found.set_on(index, args.at_least)
        write_index(index, args.output)
        _say(f"wrote {args.output}")


def _explored(args: argparse.Namespace, index: Any) -> OperatingPoints:
    try:
        return operating_points(
            index,
            _embeddings(args.embeddings),
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


def inspect(args: argparse.Namespace) -> None:
    """Show what an index file holds."""
    description = describe(read_index(args.index))
    print(description.to_json() if args.json else description)


def demo(args: argparse.Namespace) -> None:
    """Build an index on the packaged sample and tune it."""
    integer("nprobe", args.nprobe, 1)
    tuned, written, tested, drawn = (args.output / name for name in DEMO_FILES)
    args.output.mkdir(parents=True, exist_ok=True)
    check_output("output", tuned, [], index=True, force=args.force)
    for path in (written, tested, drawn):
        check_output("output", path, [], force=args.force)
        if path.exists() and not tuned.exists() and not args.force:
            raise InputError("output", "a new folder or one of a demo", f"one that has {str(path)!r}")
    sweep([args.output])
    check_plot(drawn)
    data = load_debian_packages()
    n, d = data.documents.shape
    index = index_factory(d, args.factory, args.metric)
    try:
        faiss.extract_index_ivf(index).nprobe = args.nprobe
    except RuntimeError as error:
        raise InputError("factory", "one of an IVF index", repr(args.factory)) from error
    config = DistillConfig(seed=args.seed)
    _say(f"faiss trains {args.factory} on {n:,} documents: about {duration(training_seconds(index, n))} ...")
    start = time.perf_counter()
    fill(index, open_vectors(data.documents, "embeddings"), None, config)
    build = time.perf_counter() - start
    _say(f"tuning it on {len(data.queries[data.train]):,} queries: about {duration(tuning_seconds(n, d))} ...")
    before = evaluate(index, data.documents, data.queries[data.test], relevant=data.relevant[data.test])
    start = time.perf_counter()
    report = DistillTrainer(
        index, data.documents, data.queries[data.train],
        relevant=data.relevant[data.train],
        validation_queries=data.queries[data.validation],
        validation_relevant=data.relevant[data.validation],
        config=config,
    ).train()  # fmt: skip
    tuning = time.perf_counter() - start
    after = evaluate(index, data.documents, data.queries[data.test], relevant=data.relevant[data.test])
    write_index(index, tuned)
    report.to_json(written)
    result = {"factory": args.factory, "build_seconds": build, "tune_seconds": tuning}
    result |= {"before": before.to_dict(), "after": after.to_dict()}
    content = as_json(result, tested)
    title = f"{args.factory}, codes of {before.code_size} bytes: {len(before.overlap)} test queries"
    draw(curves(before, after, title), drawn)
    if args.json:
        print(content)
        return
    heading = Section(f"On {len(before.overlap)} test queries that took no part:")
    print(f"\n{in_flags(str(report), args)}\n\n{as_text([heading, compared(before, after)])}")
    print(f"\nfaiss built the index in {build:.0f} s, tuning took {tuning:.0f} s")
    for path, what in zip((tuned, written, tested, drawn), DEMO_FILES.values(), strict=True):
        print(f"wrote {path}: {what}")


def _say(text: str) -> None:
    """For people, so not on the standard output."""
    print(text, file=sys.stderr)


def _embeddings(path: str) -> str | None:
    """The file, or None for the index's own."""
    return None if path == "-" else path
