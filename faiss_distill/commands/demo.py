"""``faiss-distill demo``."""

from __future__ import annotations

import argparse
import time

import faiss

import faiss_distill.commands.ahead  # noqa: F401
from faiss_distill import DistillConfig, DistillTrainer
from faiss_distill.api import evaluate
from faiss_distill.building.build import fill
from faiss_distill.building.estimates import duration, training_seconds, tuning_seconds
from faiss_distill.building.factory import index_factory
from faiss_distill.checks import integer
from faiss_distill.commands.outputs import say
from faiss_distill.data.samples import load_debian_packages
from faiss_distill.data.vectors import open_vectors
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import compared
from faiss_distill.files import sweep
from faiss_distill.index.files import (
    check_output,
    write_index,
)
from faiss_distill.messages import in_flags
from faiss_distill.render.content import Section
from faiss_distill.render.plot import check_plot, draw
from faiss_distill.render.result import as_json
from faiss_distill.render.table import as_text
from faiss_distill.tuning.report import curves

DEMO_FILES = {
    "tuned.faiss": "the index",
    "report.json": "the report",
    "test.json": "the test queries, before and after",
    "recall.png": "the plot, recall against codes scanned",
}


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
    say(f"faiss trains {args.factory} on {n:,} documents: about {duration(training_seconds(index, n))} ...")
    start = time.perf_counter()
    fill(index, open_vectors(data.documents, "embeddings"), None, config)
    build = time.perf_counter() - start
    say(f"tuning it on {len(data.queries[data.train]):,} queries: about {duration(tuning_seconds(n, d))} ...")
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
