"""``faiss-distill tune``, ``apply`` and ``add``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import faiss_distill.commands.ahead  # noqa: F401
from faiss_distill import DistillConfig, DistillTrainer, TunedParameters
from faiss_distill.commands.outputs import outputs, own_embeddings, say
from faiss_distill.config import Encoding
from faiss_distill.index.files import check_apart, new_lists, open_with_outputs, read_index, write_index
from faiss_distill.index.lists_file import new_lists_file
from faiss_distill.index.registry import open_index
from faiss_distill.messages import in_flags
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.settle import settle
from faiss_distill.workdir import open_workdir
from faiss_distill.world import joined, open_world


def tune(args: argparse.Namespace) -> None:
    """Fine-tune an index file."""
    options = {f.name: getattr(args, f.name) for f in fields(DistillConfig) if hasattr(args, f.name)}
    config = DistillConfig(**options) if args.config is None else DistillConfig.from_toml(args.config, **options)
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
        say(f"the inverted lists are in {lists.placed}, which {args.output} refers to")


def _tuned(
    args: argparse.Namespace, config: DistillConfig, parameters: TunedParameters | None = None, **given: Any
) -> None:
    """Tune the index in INDEX, alone or along with other processes, and write it to OUT."""
    files = [
        args.embeddings,
        args.ids,
        args.teacher,
        *([args.parameters] if parameters else [args.config, *given.values()]),
    ]
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
            own_embeddings(args.embeddings),
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
        if getattr(args, "save_config", None) is not None:
            config.to_toml(args.save_config)
        with open_workdir(args.workdir) as workdir:
            workdir.clear()
    if args.plot is not None:
        report.plot(args.plot)
    if args.html is not None:
        report.to_html(args.html)
    print(report.to_json() if args.json else f"{in_flags(str(report), args)}\n{_wrote(args, report.kept)}")
    if lists is not None and report.kept:
        say(f"the inverted lists are in {lists.placed}, which {args.output} refers to")
    own = open_index(index).nprobe
    if own != report.before.own_nprobe:
        say(f"judged at nprobe {report.before.own_nprobe}; the file keeps its nprobe of {own}: set it when you search")


def _wrote(args: argparse.Namespace, kept: bool) -> str:
    more = {"plot": args.plot, "page": args.html}
    also = "".join(f", and the {what} to {path}" for what, path in more.items() if path is not None)
    return f"wrote {args.output}{'' if kept else ', unchanged: the index as it was'}{also}"


def _opened_to_tune(
    args: argparse.Namespace, config: DistillConfig, given: list[str | None]
) -> tuple[Any, Path | None]:
    """The index, and where new inverted lists are to be, once it is known that all outputs can be written."""
    written = outputs(args)
    index = open_with_outputs(args.index, given, written, args.invlists_file, args.force)
    adapter = open_index(index)
    frozen = settle(config, adapter).encoding is Encoding.FROZEN
    placed = new_lists_file(adapter, args.invlists_file, frozen)
    check_apart(written, placed)
    return index, placed
