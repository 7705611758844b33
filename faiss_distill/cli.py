"""The command line: ``faiss-distill tune | apply | add | eval | points | inspect | demo``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import faiss_distill
from faiss_distill.config import DistillConfig, field_notes, read_options
from faiss_distill.errors import DistillError, InputError
from faiss_distill.evaluation.point import COSTS, QUALITIES
from faiss_distill.messages import Number, OneOf, Warned, check_places, check_words, print_completion, told

VECTORS = "as .npy, .fbin, .parquet:column, .hdf5:dataset and others, or a folder of such parts"
EPILOG = """Output files are written under another name and then renamed, so each is either complete or unchanged. A
killed run may leave a folder .faiss-distill-X behind, which the next run that writes there removes. Exit status: 0,
done, whether or not the tuned index was kept; 2, an error, which is one line on standard error; 128 + n, ended by
signal n (SIGINT 130, SIGTERM 143, SIGHUP 129); 141, standard output was closed before everything was printed."""
EXAMPLES = """
faiss-distill inspect wiki.faiss
faiss-distill tune wiki.faiss wiki.npy --queries log.npy --nprobe 16 -o tuned.faiss
faiss-distill COMMAND --help
"""
HELP_WIDTH = 78
RUNS = {
    "tune": "tuning.tune",
    "apply": "tuning.apply",
    "add": "tuning.add",
    "eval": "measuring.evaluation",
    "points": "measuring.points",
    "inspect": "inspecting.inspect",
    "demo": "demo.demo",
}
"""The function of :mod:`faiss_distill.commands` that each command is."""
TEACHER = (
    "what finds the queries' nearest documents: a .npz of ids and scores (nq, K), a row for each query, or ids alone, "
    "such as .ivecs; or a fuller index file (default: exact search, or a search of the nearest lists where that is "
    "cheaper)"
)
ARRAYS = ("embeddings", "queries", "validation_queries", "ids")
READ = ("index", "parameters", *ARRAYS, "relevant", "validation_relevant", "teacher", "config")
"""Arguments that are files to read, and those of them that are one array."""
NO_PROGRESS = "show no progress: neither bars nor, where standard error is no terminal, a line for each stage"
NAMED = ("queries", "validation_queries", "ids", "relevant")
"""Arguments that the docstrings of options name, and that are options on the command line."""
COMMON = ("nprobe", "effort", "epochs", "seed", "device", "max_memory", "progress")
"""Options of the tuning that come first in the help."""
LABELS = "a file of integers (nq,) or (nq, r), or qrels of query rows and ids"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; :mod:`faiss_distill.__main__` does so in a process of its own.

    Returns:
        The exit status: 0, or 2 after an error, which is printed on one line.
    """
    args = parse(argv)
    return check(args) or run(args)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the arguments say, without the imports that a command needs."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser(brief="--help-all" not in argv)
    check_words(parser, argv)
    args, rest = parser.parse_known_args(argv)
    check_places(getattr(args, "parser", parser), rest)
    return args


def check(args: argparse.Namespace) -> int:
    """See whether files can be read and written, before the imports that a command needs; returns the exit status."""
    if "RANK" in os.environ:
        return 0  # one of several processes, which find it out together
    from faiss_distill.data.formats import check_source, is_index
    from faiss_distill.data.parts import open_source

    try:
        d = None
        for name in READ:
            path = getattr(args, name, None)
            if path is None or str(path) == "-":
                continue
            if name not in ARRAYS or is_index(Path(path)):
                check_source(path, name)
                if name == "config":
                    read_options(path)
                continue
            shape = open_source(path, name).shape
            if name != "ids" and len(shape) == 2:
                d = d or shape[1]
                if shape[1] != d:
                    raise InputError(name, f"dimension {d}, as the embeddings have", str(shape[1]))
        if hasattr(args, "index"):
            from faiss_distill.commands.outputs import WRITTEN
            from faiss_distill.index.files import check_outputs

            inputs = [getattr(args, name, None) for name in READ if name != "index"]
            outputs = {name: getattr(args, name, None) for name in WRITTEN}
            check_outputs(args.index, inputs, outputs, getattr(args, "invlists_file", None), args.force)
    except (DistillError, OSError) as error:
        return _failed(error, args)
    return 0


def loaded(args: argparse.Namespace) -> Callable[[argparse.Namespace], None]:
    """What the command does, and all that it needs: for most of them torch, faiss and scipy, which take seconds."""
    module, _, name = args.run.partition(".")
    function: Callable[[argparse.Namespace], None] = getattr(import_module(f"faiss_distill.commands.{module}"), name)
    return function


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; returns the exit status."""
    command = loaded(args)
    shown = logging.StreamHandler()
    shown.setFormatter(Warned(args))
    logging.basicConfig(level=logging.WARNING, handlers=[shown])
    first = os.environ.get("RANK", "0") == "0"
    if first and getattr(args, "progress", True) and not sys.stderr.isatty():
        logging.getLogger(faiss_distill.__name__).setLevel(logging.INFO)  # a line for each bar that is not shown
    try:
        command(args)
    except BrokenPipeError:
        raise
    except (DistillError, OSError) as error:
        if not first and getattr(error, "known_to_all", False):
            return 2  # the first process says so
        return _failed(error, args)
    return 0


def _failed(error: DistillError | OSError, args: argparse.Namespace) -> int:
    print(f"faiss-distill: error: {told(error, args)}", file=sys.stderr)
    return 2


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Leaves line breaks, and takes for one colon the two that the reference is made of."""

    def format_help(self) -> str:
        return super().format_help().replace("examples::", "examples:")


def build_parser(brief: bool = False) -> argparse.ArgumentParser:
    """The parser, from which the reference is made too; if ``brief``, the help of ``tune`` leaves out what few need."""
    parser = argparse.ArgumentParser(
        prog="faiss-distill",
        description=_filled(faiss_distill.__doc__ or ""),
        epilog=f"{_examples(EXAMPLES)}\n\n{_filled(EPILOG)}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"faiss-distill {faiss_distill.__version__}")
    parser.add_argument(
        "--print-completion",
        metavar="SHELL",
        action=print_completion(),
        choices=("bash", "zsh", "tcsh"),
        help="print a completion script for this shell and exit (needs faiss-distill[completion])",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    _add_tune(commands, brief)
    for add in (_add_apply, _add_add, _add_eval, _add_points, _add_inspect, _add_demo):
        add(commands)
    return parser


def _add_command(commands: Any, name: str, note: str, description: str, examples: str, **more: Any) -> Any:
    """A command, whose help ends in examples."""
    parser = commands.add_parser(
        name,
        help=note,
        description=_filled(description),
        epilog=_examples(examples),
        formatter_class=_Formatter,
        allow_abbrev=False,
        **more,
    )
    parser.set_defaults(run=RUNS[name], parser=parser)
    return parser


def _filled(text: str) -> str:
    return textwrap.fill(text, HELP_WIDTH, break_on_hyphens=False)


def _examples(lines: str) -> str:
    return f"examples::\n\n{textwrap.indent(textwrap.dedent(lines).strip(), '  ')}"


def _add_tune(commands: Any, brief: bool) -> None:
    tune = _add_command(
        commands,
        "tune",
        "fine-tune an index file",
        "Fine-tune the index in INDEX and write it to OUT. INDEX is not changed unless OUT is the same "
        "file. If held-out queries do not show that the tuned index is better, OUT is the index as it was. The exit "
        "status is 0 either way, and 2 after an error.",
        """
        faiss-distill tune wiki.faiss wiki.npy --queries log.npy --nprobe 16 -o tuned.faiss
        faiss-distill tune wiki.faiss wiki.npy --queries log.npy --ids ids.npy -o tuned.faiss --plot recall.png
        faiss-distill tune refined.faiss - -o tuned.faiss
        """,
        usage="faiss-distill tune INDEX EMBEDDINGS [--queries FILE] -o OUT [options]",
    )
    _add_inputs(tune)
    tune.add_argument(
        "--queries", metavar="FILE", help=f"training queries, {VECTORS} (default: documents are used as queries)"
    )
    tune.add_argument(
        "--validation-queries",
        metavar="FILE",
        help="queries that choose and judge (default: held out); 20 do, also without --queries",
    )
    tune.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    tune.add_argument("--validation-relevant", metavar="FILE", help="the same for --validation-queries")
    tune.add_argument("--teacher", metavar="FILE", help=TEACHER)
    tune.add_argument(
        "--save-parameters",
        metavar="FILE",
        type=Path,
        help="where to write what was learned, for faiss-distill apply, if the result is kept",
    )
    tune.add_argument(
        "--save-config", metavar="FILE", type=Path, help="where to write all options of the tuning, for --config"
    )
    tune.add_argument("--help-all", action="help", help="show this help with all options of the tuning, and exit")
    _add_tuned_outputs(tune)
    _add_config(tune, brief)


def _add_apply(commands: Any) -> None:
    apply = _add_command(
        commands,
        "apply",
        "put what was learned into another index file of the same training",
        "Put what faiss-distill tune --save-parameters has learned into the index in INDEX, which must have the same "
        "training as the one that was tuned: another shard of a corpus, say. Nothing is learned, but lists and codes "
        "of its vectors are chosen again. The result is judged as by tune and written to OUT.",
        """
        faiss-distill tune sample.faiss sample.npy --queries log.npy -o s.faiss --save-parameters learned
        faiss-distill apply learned shard1.faiss shard1.npy -o tuned1.faiss
        """,
    )
    apply.add_argument("parameters", metavar="PARAMETERS", type=Path, help="a file from tune --save-parameters")
    _add_inputs(apply)
    apply.add_argument("--teacher", metavar="FILE", help=TEACHER)
    _add_tuned_outputs(apply)
    apply.add_argument("--nprobe", metavar="N", type=Number(int), help="judge the result at this many lists probed")
    apply.add_argument(
        "--keep",
        action="store_true",
        help="keep the result even if it is not better: faiss merges shards only if all have the same parameters",
    )
    apply.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    apply.add_argument("--no-progress", dest="progress", action="store_false", help=NO_PROGRESS)


def _add_add(commands: Any) -> None:
    add = _add_command(
        commands,
        "add",
        "add later vectors to an index file that holds what was learned",
        "Add the vectors in EMBEDDINGS to the index in INDEX, to which faiss-distill tune or apply has given "
        "the parameters in PARAMETERS, with lists and codes chosen for the same queries. The vectors that are already "
        "in the index keep theirs. The result is written to OUT without being judged; the report is on the new vectors "
        "only.",
        """
        faiss-distill tune wiki.faiss wiki.npy --queries log.npy -o tuned.faiss --save-parameters learned
        faiss-distill add learned tuned.faiss later.npy -o tuned.faiss
        """,
    )
    add.add_argument("parameters", metavar="PARAMETERS", type=Path, help="a file from tune --save-parameters")
    add.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    add.add_argument("embeddings", metavar="EMBEDDINGS", help=f"the new vectors, {VECTORS}")
    add.add_argument(
        "--ids",
        metavar="FILE",
        help="id of each new vector, a file of integers (default: numbered from the size of the index on)",
    )
    add.add_argument("-o", "--output", metavar="OUT", required=True, type=Path, help="where to write the larger index")
    _add_lists_file(add)
    _add_force(add)
    add.add_argument("--json", action="store_true", help="print the report as JSON")
    add.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    add.add_argument("--no-progress", dest="progress", action="store_false", help=NO_PROGRESS)
    add.set_defaults(plot=None, html=None)


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
        help="a folder for the results of each stage: if this command is killed, the same command continues from "
        "there. It is removed when OUT is written",
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw recall against codes scanned, .png, .svg or .pdf"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as a page for a browser")
    _add_force(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_lists_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--invlists-file",
        metavar="FILE",
        type=Path,
        help="a new file for the inverted lists, which OUT refers to (default: they are in OUT; or, if those of INDEX "
        "are in a file of their own, in a new file next to it)",
    )


def _add_eval(commands: Any) -> None:
    evaluation = _add_command(
        commands,
        "eval",
        "measure an index file against exact search",
        "Search the index in INDEX with several values of nprobe and compare with exact search over EMBEDDINGS.",
        """
        faiss-distill eval tuned.faiss wiki.npy --queries test.npy
        faiss-distill eval tuned.faiss wiki.npy --queries test.npy --relevant qrels.tsv --nprobe 8 16 32
        """,
    )
    _add_inputs(evaluation)
    evaluation.add_argument("--queries", metavar="FILE", required=True, help=f"queries, {VECTORS}")
    evaluation.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    evaluation.add_argument(
        "--nprobe",
        metavar="N",
        type=Number(int, several=True),
        nargs="+",
        help="lists to probe, in addition to the index's own nprobe, which is starred (default: 1 4 16 64)",
    )
    _add_page(evaluation)
    evaluation.add_argument("--json", action="store_true", help="print JSON")


def _add_points(commands: Any) -> None:
    points = _add_command(
        commands,
        "points",
        "find the nprobe and similar settings to search with",
        "Search the index in INDEX over its parameters (nprobe, efSearch of an HNSW coarse quantizer, "
        "k_factor of a refinement) and print the Pareto front: the settings that no other setting beats in both "
        "quality and cost. With --at-least, name the cheapest that finds enough; with -o, also set it and write the "
        "index to OUT.",
        """
        faiss-distill points tuned.faiss wiki.npy --queries valid.npy
        faiss-distill points tuned.faiss wiki.npy --queries valid.npy --at-least 0.6 -o set.faiss
        """,
    )
    _add_inputs(points)
    points.add_argument("--queries", metavar="FILE", required=True, help=f"queries, {VECTORS}")
    points.add_argument("--relevant", metavar="FILE", help=f"relevant ids of the queries, {LABELS}")
    points.add_argument(
        "--nprobe",
        metavar="N",
        type=Number(int, several=True),
        nargs="+",
        help="lists to probe (default: powers of two, as faiss does)",
    )
    points.add_argument(
        "--quality",
        metavar="QUALITY",
        type=OneOf(QUALITIES),
        choices=QUALITIES,
        default="overlap_at_10",
        help=f"what counts as found: {', '.join(QUALITIES)} (default: %(default)s)",
    )
    points.add_argument(
        "--cost",
        type=OneOf(COSTS),
        choices=list(COSTS),
        default="distances",
        help="what counts as cost (default: %(default)s)",
    )
    points.add_argument("--at-least", metavar="X", type=Number(float), help="the quality that is enough")
    points.add_argument("-o", "--output", metavar="OUT", type=Path, help="where to write the index with that setting")
    points.add_argument("--plot", metavar="FILE", type=Path, help="draw the points, .png, .svg or .pdf")
    points.add_argument("--html", metavar="FILE", type=Path, help="write them as a page for a browser")
    _add_force(points)
    points.add_argument("--json", action="store_true", help="print JSON")


def _add_inspect(commands: Any) -> None:
    inspect = _add_command(
        commands,
        "inspect",
        "show what an index file holds and what can be tuned",
        "Show what the index in INDEX holds and whether it can be tuned.",
        """
        faiss-distill inspect wiki.faiss
        faiss-distill inspect wiki.faiss --json
        """,
    )
    inspect.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    _add_page(inspect)
    inspect.add_argument("--json", action="store_true", help="print JSON")


def _add_demo(commands: Any) -> None:
    demo = _add_command(
        commands,
        "demo",
        "build an index on the packaged sample and tune it",
        "Build an index on 16,000 Debian package descriptions, tune it on 2,800 queries, and report on "
        "900 other queries. Writes the index, the reports and a plot.",
        """
        faiss-distill demo
        faiss-distill demo --factory IVF64,PQ32x4fsr --metric l2 -o demo-l2
        """,
    )
    demo.add_argument("-o", "--output", metavar="DIR", type=Path, default=Path("demo"), help="folder (default: demo)")
    _add_force(demo)
    demo.add_argument("--factory", default="OPQ16,IVF128,PQ16np", help="factory string (default: %(default)s)")
    demo.add_argument("--metric", metavar="METRIC", default="ip", help="ip or l2 (default: %(default)s)")
    demo.add_argument("--nprobe", metavar="N", type=Number(int), default=8, help="lists probed (default: %(default)s)")
    demo.add_argument(
        "--seed", metavar="N", type=Number(int), default=0, help="seed of the tuning (default: %(default)s)"
    )
    demo.add_argument("--json", action="store_true", help="print the test queries' before and after as JSON")


def _option_or_word(match: re.Match[str]) -> str:
    """A name in a docstring, as the option that it is on the command line, if it is one."""
    known = {*NAMED, *(field.name for field in fields(DistillConfig))} - {"query_encoder_rate"}
    return f"--{match[1].replace('_', '-')}" if match[1] in known else match[1]


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="INDEX", type=Path, help="a file from faiss.write_index")
    note = f"the vectors behind the index, {VECTORS}, or - for those that an IndexRefineFlat holds"
    parser.add_argument("embeddings", metavar="EMBEDDINGS", help=note)
    parser.add_argument(
        "--ids", metavar="FILE", help="id of each embedding, a file of integers (default: its row number)"
    )


def _add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force",
        action="store_true",
        help="also replace an output file that is not of its kind, such as OUT if it is no index, or that has hard "
        "links; an index is replaced without this",
    )


def _add_page(parser: argparse.ArgumentParser) -> None:
    """What the commands that write no index may write."""
    parser.add_argument("--html", metavar="FILE", type=Path, help="write it as a page for a browser")
    parser.add_argument("--force", action="store_true", help="also replace a FILE that has hard links")


def _add_config(parser: argparse.ArgumentParser, brief: bool) -> None:
    """One option for each field of DistillConfig, with the help from its docstring; none for most of them if brief.

    What is not given is not there, so that a file of options can have it.
    """
    more = "--help-all shows the others, which few need" if brief else None
    common = parser.add_argument_group("common options of the tuning", more)
    rest = parser.add_argument_group("further options of the tuning")
    common.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="a TOML file with options of the tuning, such as --save-config writes (local_weight = 2.0); those given "
        "on the command line win over it",
    )
    notes = field_notes()
    types = {"int": int, "int | None": int, "float": float, "float | None": float}
    for field in sorted(fields(DistillConfig), key=lambda field: (*COMMON, field.name).index(field.name)):
        group = common if field.name in COMMON else rest
        note = re.sub(r"`+(\w+)`+", _option_or_word, notes[field.name]).replace("`", "").replace("%", "%%")
        default = getattr(field.default, "value", field.default)
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "query_encoder_rate":
            continue  # no module comes over a command line
        note = argparse.SUPPRESS if brief and group is rest else note
        if field.name == "progress":
            group.add_argument(
                "--no-progress", dest="progress", action="store_false", default=argparse.SUPPRESS, help=NO_PROGRESS
            )
            continue
        if isinstance(default, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=note)
            continue
        shown = default is not None and note != argparse.SUPPRESS
        text = f"{note.rstrip('.')} (default: {default})" if shown else note
        kind = types.get(str(field.type))  # enums and notations are checked by DistillConfig
        metavar = field.name.split("_")[-1].upper() if kind is None else "N" if kind is int else "X"
        group.add_argument(
            option,
            metavar=metavar,
            type=str if kind is None else Number(kind),
            default=argparse.SUPPRESS,
            help=text,
        )
