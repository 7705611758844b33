"""The command line: ``faiss-distill tune | apply | add | eval | points | inspect | demo``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import faiss

import faiss_distill
from faiss_distill import DistillConfig, DistillTrainer, TunedParameters, describe
from faiss_distill.api import evaluate, operating_points
from faiss_distill.config import Encoding, field_notes
from faiss_distill.data.formats import FORMATS
from faiss_distill.data.formats.files import check_file
from faiss_distill.data.formats.npy import open_npy
from faiss_distill.data.samples import load_debian_packages
from faiss_distill.errors import DistillError, InputError
from faiss_distill.evaluation.measure import compared
from faiss_distill.evaluation.operating_points import COSTS, QUALITIES
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
from faiss_distill.render.content import Section
from faiss_distill.render.plot import check_plot, draw
from faiss_distill.render.result import as_json
from faiss_distill.render.table import as_text
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.report import curves
from faiss_distill.tuning.settle import settle
from faiss_distill.workdir import open_workdir
from faiss_distill.world import joined, launched, open_world

DEMO_FILES = ("tuned.faiss", "report.json", "test.json", "recall.png")
VECTORS = " or ".join(", ".join(FORMATS).rsplit(", ", 1))
EPILOG = """Output files are written beside their place and renamed into it: each is whole, or as it was. Exit status: 0
done, whether or not the tuned index was kept; 2 an error, which is one line on standard error; 128 + n ended by signal
n (SIGINT 130, SIGTERM 143, SIGHUP 129); 141 standard output was closed before all was printed. What a killed run leaves
behind, in folders .faiss-distill-X, the next one that writes there removes."""
TEACHER = (
    "what finds the queries' nearest documents: a .npz of ids and scores (nq, K), a row for each query, or an index "
    "file that stores more (default: exact search, or that of the nearest lists where it is cheaper)"
)
LABELS = "integer .npy (nq,) or (nq, r), or qrels of query rows and ids"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; :mod:`faiss_distill.__main__` does so in a process of its own.

    Returns:
        The exit status: 0, or 2 after an error, which is printed on one line.
    """
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        args.run(args)
    except BrokenPipeError:
        raise
    except (DistillError, OSError) as error:
        if launched() and os.environ["RANK"] != "0" and getattr(error, "known_to_all", False):
            return 2  # the first process says so
        if isinstance(error, DistillError) and error.argument in vars(args).keys() - {
            "index",
            "embeddings",
            "parameters",
        }:
            error.argument = f"--{error.argument.replace('_', '-')}"
        message = re.sub(r"^\[Errno \d+\] ", "", " ".join(str(error).split()))
        print(f"faiss-distill: error: {message}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser, from which the reference is made too."""
    parser = argparse.ArgumentParser(prog="faiss-distill", description=faiss_distill.__doc__, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"faiss-distill {faiss_distill.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for add in (_add_tune, _add_apply, _add_add, _add_eval, _add_points, _add_inspect, _add_demo):
        add(commands)
    return parser


def _add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune",
        help="fine-tune an index file",
        usage="faiss-distill tune INDEX EMBEDDINGS [--queries FILE] -o OUT [options]",
        description="Fine-tune the index in INDEX and write it to OUT. INDEX is not changed unless OUT is the same "
        "file. If held-out queries do not say that the tuned index is better, OUT is the index as it was. The exit "
        "status is 0 either way, and 2 after an error.",
    )
    _add_inputs(tune)
    tune.add_argument("--queries", metavar="FILE", help=f"training queries, {VECTORS} (default: documents stand in)")
    tune.add_argument("--validation-queries", metavar="FILE", help="queries that choose and judge (default: held out)")
    tune.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    tune.add_argument("--validation-relevant", metavar="FILE", help="the same for --validation-queries")
    tune.add_argument("--teacher", metavar="FILE", help=TEACHER)
    tune.add_argument(
        "--save-parameters",
        metavar="FILE",
        type=Path,
        help="where to write what was learned, for faiss-distill apply, if the result is kept",
    )
    _add_tuned_outputs(tune)
    _add_config(tune)
    tune.set_defaults(run=_tune)


def _add_apply(commands: Any) -> None:
    apply = commands.add_parser(
        "apply",
        help="put what was learned into another index file of the same training",
        description="Put what faiss-distill tune --save-parameters has learned into the index in INDEX, which was "
        "trained as the one that was tuned: a shard of a corpus, say. Nothing is learned; lists and codes of its "
        "vectors are chosen anew. Written to OUT and judged as by tune.",
    )
    apply.add_argument("parameters", metavar="PARAMETERS", type=Path, help="a file from tune --save-parameters")
    _add_inputs(apply)
    apply.add_argument("--teacher", metavar="FILE", help=TEACHER)
    _add_tuned_outputs(apply)
    apply.add_argument("--nprobe", metavar="N", type=int, help="judge the result at this many lists probed")
    apply.add_argument(
        "--keep",
        action="store_true",
        help="keep the result even where it is not better: faiss merges shards only if all have the same parameters",
    )
    apply.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    apply.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bars")
    apply.set_defaults(run=_apply)


def _add_add(commands: Any) -> None:
    add = commands.add_parser(
        "add",
        help="add later vectors to an index file that holds what was learned",
        description="Add the vectors in EMBEDDINGS to the index in INDEX, which faiss-distill tune or apply has given "
        "the parameters in PARAMETERS, with lists and codes chosen for the same queries. Vectors that the index holds "
        "keep theirs. Written to OUT; nothing is judged, and the report is on the new vectors alone.",
    )
    add.add_argument("parameters", metavar="PARAMETERS", type=Path, help="a file from tune --save-parameters")
    add.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    add.add_argument("embeddings", metavar="EMBEDDINGS", help=f"the new vectors, {VECTORS}")
    add.add_argument(
        "--ids", metavar="FILE", help="id of each new vector, integer .npy (default: from the number of vectors on)"
    )
    add.add_argument(
        "-o", "--output", metavar="OUT", required=True, type=Path, help="where to write the index that has grown"
    )
    _add_lists_file(add)
    _add_force(add)
    add.add_argument("--json", action="store_true", help="print the report as JSON")
    add.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    add.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bars")
    add.set_defaults(run=_add, plot=None)


def _add_tuned_outputs(parser: argparse.ArgumentParser) -> None:
    """What tune and apply write."""
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, type=Path, help="where to write the tuned index"
    )
    _add_lists_file(parser)
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        type=Path,
        help="a folder that keeps what each stage has found: the same command goes on from there if this one is "
        "killed, and removes it when OUT is written",
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw recall against codes scanned, .png, .svg or .pdf"
    )
    _add_force(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_lists_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--invlists-file",
        metavar="FILE",
        type=Path,
        help="a new file for the inverted lists, which OUT refers to (default: within OUT; if those of INDEX are in a "
        "file of their own, in a new one beside it)",
    )


def _add_eval(commands: Any) -> None:
    evaluation = commands.add_parser(
        "eval",
        help="measure an index file against exact search",
        description="Search the index in INDEX at several nprobe and compare with exact search over EMBEDDINGS.",
    )
    _add_inputs(evaluation)
    evaluation.add_argument("--queries", metavar="FILE", required=True, help=f"queries, {VECTORS}")
    evaluation.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    evaluation.add_argument(
        "--nprobe",
        metavar="N",
        type=int,
        nargs="+",
        help="lists to probe, besides the index's own nprobe, which is starred (default: 1 4 16 64)",
    )
    evaluation.add_argument("--json", action="store_true", help="print JSON")
    evaluation.set_defaults(run=_eval)


def _add_points(commands: Any) -> None:
    points = commands.add_parser(
        "points",
        help="find the nprobe, and the like, to search with",
        description="Search the index in INDEX over its parameters (nprobe, efSearch of an HNSW coarse quantizer, "
        "k_factor of a refinement) and print the Pareto front: what no other setting finds as cheaply. With "
        "--at-least, name the cheapest that finds enough; with -o, also set it and write the index to OUT.",
    )
    _add_inputs(points)
    points.add_argument("--queries", metavar="FILE", required=True, help=f"queries, {VECTORS}")
    points.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    points.add_argument(
        "--nprobe", metavar="N", type=int, nargs="+", help="lists to probe (default: powers of two, as faiss does)"
    )
    points.add_argument(
        "--quality", choices=QUALITIES, default="overlap_at_10", help="what counts as found (default: %(default)s)"
    )
    points.add_argument("--cost", choices=list(COSTS), default="distances", help="what it costs (default: %(default)s)")
    points.add_argument("--at-least", metavar="X", type=float, help="the quality that is enough")
    points.add_argument("-o", "--output", metavar="OUT", type=Path, help="where to write the index so set")
    points.add_argument("--plot", metavar="FILE", type=Path, help="draw the points, .png, .svg or .pdf")
    _add_force(points)
    points.add_argument("--json", action="store_true", help="print JSON")
    points.set_defaults(run=_points)


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="show what an index file holds and what can be tuned",
        description="Show what the index in INDEX holds and whether it can be tuned.",
    )
    inspect.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="build an index on the packaged sample and tune it",
        description="Build an index on 16,000 Debian package descriptions, tune it on 2,800 queries, and report on "
        "900 others that took no part. Writes the index, the reports and a plot.",
    )
    demo.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path("demo"), help="folder (default: demo)")
    _add_force(demo)
    demo.add_argument("--factory", default="OPQ16,IVF128,PQ16", help="factory string (default: %(default)s)")
    demo.add_argument("--metric", choices=["ip", "l2"], default="ip", help="metric (default: %(default)s)")
    demo.add_argument("--nprobe", metavar="N", type=int, default=8, help="lists probed (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="seed of the tuning (default: %(default)s)")
    demo.add_argument("--json", action="store_true", help="print the test queries' before and after as JSON")
    demo.set_defaults(run=_demo)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    note = f"the vectors behind the index, {VECTORS}, or - for those that an IndexRefineFlat holds"
    parser.add_argument("embeddings", metavar="EMBEDDINGS", help=note)
    parser.add_argument("--ids", metavar="FILE", help="id of each embedding, integer .npy (default: its row number)")


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that are no index, or have several names")


def _add_config(parser: argparse.ArgumentParser) -> None:
    """One option for each field of DistillConfig, with the help from its docstring."""
    group = parser.add_argument_group("options of the tuning")
    notes = field_notes()
    types = {"int": int, "int | None": int, "float": float, "float | None": float}
    for field in fields(DistillConfig):
        note = notes[field.name].replace("`", "").replace("%", "%%")
        default = getattr(field.default, "value", field.default)
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "query_encoder_rate":
            continue  # no module comes over a command line
        if field.name == "progress":
            group.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bars")
            continue
        if isinstance(default, bool):
            action = argparse.BooleanOptionalAction if default else "store_true"
            group.add_argument(option, action=action, default=default, help=note)
            continue
        text = note if default is None else f"{note.rstrip('.')} (default: {default})"
        kind = types.get(str(field.type), str)  # enums and notations are checked by DistillConfig
        metavar = {int: "N", float: "X"}.get(kind, field.name.split("_")[-1].upper())
        group.add_argument(option, metavar=metavar, type=kind, default=default, help=text)


def _tune(args: argparse.Namespace) -> None:
    config = DistillConfig(**{f.name: getattr(args, f.name) for f in fields(DistillConfig) if hasattr(args, f.name)})
    labels = {"relevant": args.relevant, "validation_relevant": args.validation_relevant}
    _tuned(args, config, queries=args.queries, validation_queries=args.validation_queries, **labels)


def _apply(args: argparse.Namespace) -> None:
    parameters = TunedParameters.load(args.parameters)
    asked = {"queries": parameters.queries, "validation_queries": parameters.validation_queries}
    options = {"device": args.device, "progress": args.progress}
    options |= {} if args.nprobe is None else {"nprobe": args.nprobe}
    _tuned(args, parameters.options(**options), parameters, **asked)


def _add(args: argparse.Namespace) -> None:
    parameters = TunedParameters.load(args.parameters)
    options = {"device": args.device, "progress": args.progress}
    files = [args.embeddings, args.ids, args.parameters]
    index, placed = _opened_to_tune(args, parameters.options(**options, encoding=Encoding.NEAREST), files)
    with new_lists(placed) as lists:
        made = None if lists is None else lists.made
        ids = _read_ids(args.ids)
        report = parameters.add(index, args.embeddings, ids=ids, invlists_file=made, **options)
        write_index(index, args.output, lists)
    print(report.to_json() if args.json else f"{report}\nwrote {args.output}")
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
            ids = _read_ids(args.ids)
        trainer = DistillTrainer(
            index,
            _embeddings(args.embeddings),
            ids=ids,
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
    print(report.to_json() if args.json else f"{report}\nwrote {args.output}")
    if lists is not None and report.kept:
        _say(f"the inverted lists are in {lists.placed}, which {args.output} refers to")
    own = open_index(index).nprobe
    if own != report.before.own_nprobe:
        _say(f"judged at nprobe {report.before.own_nprobe}; the file keeps its nprobe of {own}: set it when you search")


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
    return {"output": args.output, "plot": args.plot, "save_parameters": getattr(args, "save_parameters", None)}


def _eval(args: argparse.Namespace) -> None:
    index = read_index(args.index)
    result = evaluate(
        index,
        _embeddings(args.embeddings),
        args.queries,
        ids=_read_ids(args.ids),
        relevant=args.relevant,
        nprobe=args.nprobe,
        top_k=min(100, index.ntotal),
    )
    print(result.to_json() if args.json else result)


def _points(args: argparse.Namespace) -> None:
    given = [args.embeddings, args.queries, args.ids, args.relevant]
    if args.output is not None and args.at_least is None:
        raise InputError("output", "it with --at-least, which says what to set", "it without")
    index = open_with_outputs(args.index, given, _outputs(args), force=args.force)
    points = operating_points(
        index,
        _embeddings(args.embeddings),
        args.queries,
        ids=_read_ids(args.ids),
        relevant=args.relevant,
        parameters=None if args.nprobe is None else ranges(index) | {"nprobe": args.nprobe},
        quality=args.quality,
        cost=args.cost,
        top_k=min(100, index.ntotal),
    )
    if args.plot is not None:
        points.plot(args.plot)
    print(points.to_json() if args.json else points)
    if args.at_least is not None:
        point = points.cheapest(args.at_least)
        found = f"{points.title} {getattr(point, args.quality):.3f}"
        _say(f"\ncheapest of at least {args.at_least:g}: {found} with {point.parameters or 'the index as it is'}")
    if args.output is not None:
        points.set_on(index, args.at_least)
        write_index(index, args.output)
        _say(f"wrote {args.output}")


def _inspect(args: argparse.Namespace) -> None:
    description = describe(read_index(args.index))
    print(description.to_json() if args.json else description)


def _demo(args: argparse.Namespace) -> None:
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
    metric = faiss.METRIC_INNER_PRODUCT if args.metric == "ip" else faiss.METRIC_L2
    try:
        index = faiss.index_factory(data.documents.shape[1], args.factory, metric)
        faiss.extract_index_ivf(index).nprobe = args.nprobe
    except RuntimeError as error:
        raise InputError("factory", "one of an IVF index", f"{args.factory!r}: {error}") from error
    _say(f"building {args.factory} on {len(data.documents)} documents ...")
    start = time.perf_counter()
    index.train(data.documents)
    index.add(data.documents)
    build = time.perf_counter() - start
    before = evaluate(index, data.documents, data.queries[data.test], relevant=data.relevant[data.test])
    start = time.perf_counter()
    report = DistillTrainer(
        index, data.documents, data.queries[data.train],
        relevant=data.relevant[data.train],
        validation_queries=data.queries[data.validation],
        validation_relevant=data.relevant[data.validation],
        config=DistillConfig(seed=args.seed),
    ).train()  # fmt: skip
    tuning = time.perf_counter() - start
    after = evaluate(index, data.documents, data.queries[data.test], relevant=data.relevant[data.test])
    write_index(index, tuned)
    report.to_json(written)
    result = {"factory": args.factory, "build_seconds": build, "tune_seconds": tuning}
    result |= {"before": before.to_dict(), "after": after.to_dict()}
    content = as_json(result, tested)
    title = f"{args.factory}, {before.bytes_per_vector} bytes a vector: {len(before.overlap)} test queries"
    draw(curves(before, after, title), drawn)
    if args.json:
        print(content)
        return
    heading = Section(f"On {len(before.overlap)} test queries that took no part:")
    print(f"\n{report}\n\n{as_text([heading, compared(before, after)])}")
    print(f"\nfaiss built the index in {build:.0f} s, tuning took {tuning:.0f} s")
    print(f"wrote {', '.join(DEMO_FILES)} to {args.output}")


def _say(text: str) -> None:
    """For people, so not on the standard output."""
    print(text, file=sys.stderr)


def _embeddings(path: str) -> str | None:
    """The file, or None for the index's own."""
    return None if path == "-" else path


def _read_ids(path: str | None) -> Any:
    """An integer ``.npy`` file, or None."""
    if path is None:
        return None
    check_file(Path(path), "ids")
    return open_npy(Path(path), "ids")
