"""Tune an index of every family, in both metrics, and report on test queries.

    python -m benchmarks.families            # the packaged sample
    python -m benchmarks.families --quick    # a few of them, on a part of it
    python -m benchmarks.families --only RQ  # those with this in their factory string
    python -m benchmarks.families --jobs 8   # so many at a time, which share the processor's cores

Each index is built by faiss, tuned with the defaults and the never-worse gate on, and searched with the test queries,
which take part in nothing else. Bytes are those of a code; codes scanned are before and after. Writes
``results/families.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from scipy import stats

from benchmarks.suite.experiment import METRICS, QUICK_DOCUMENTS, QUICK_QUERIES, cut
from benchmarks.suite.results import LEVEL
from faiss_distill import DistillTrainer, evaluate
from faiss_distill.config import DistillConfig
from faiss_distill.datasets import RetrievalData, load_debian_packages

FAMILIES = {
    "IndexIVFPQ": (
        "IVF{0},PQ16np", "OPQ16,IVF{0},PQ16np", "OPQ8,IVF{0},PQ8np", "IVF{0},PQ32x4np", "IVF{0},PQ16x6np",
        "IVF{0}_HNSW16,PQ16np", "IVF{0}(SQfp16),PQ16np", "IVF{0}(SQ8),PQ16np",
        "IVF{0}(SQ4,RFlat),PQ16np", "IVF{0}(PCA64,Flat),PQ16np", "IMI2x4,PQ16np", "PCA64,IVF{0},PQ16np",
        "IDMap2,L2norm,IVF{0},PQ16np", "IVF{0},PQ16np,RFlat", "IVF{0},PQ16np,Refine(SQ8)",
    ),
    "IndexIVFPQFastScan": ("IVF{0},PQ32x4fs", "IVF{0},PQ32x4fsr", "OPQ32,IVF{0},PQ32x4fsr", "IVF{0},PQ32x4fs,RFlat"),
    "IndexPQ": ("PQ16np", "OPQ16,PQ16np", "PQ32x4np", "PQ16np,RFlat"),
    "IndexPQFastScan": ("PQ32x4fs", "OPQ32,PQ32x4fs", "PQ32x4fs,RFlat"),
    "IndexIVFResidualQuantizer": ("IVF{0},RQ8x6", "IVF{0},RQ8x8", "IVF{0},RQ8x8_Nqint8"),
    "IndexIVFLocalSearchQuantizer": ("IVF{0},LSQ8x6",),
    "IndexIVFProductResidualQuantizer": ("IVF{0},PRQ8x2x6", "IVF{0},PRQ8x2x8"),
    "IndexIVFProductLocalSearchQuantizer": ("IVF{0},PLSQ8x2x6",),
    "IndexResidualQuantizer": ("RQ8x6",),
    "IndexLocalSearchQuantizer": ("LSQ8x6",),
    "IndexProductResidualQuantizer": ("PRQ8x2x6", "PRQ8x2x8"),
    "IndexProductLocalSearchQuantizer": ("PLSQ8x2x6",),
    "IndexIVFResidualQuantizerFastScan": ("IVF{0},RQ32x4fsr", "IVF{0},RQ30x4fsr_Nrq2x4"),
    "IndexIVFLocalSearchQuantizerFastScan": ("IVF{0},LSQ16x4fsr", "IVF{0},LSQ14x4fsr_Nrq2x4"),
    "IndexIVFProductResidualQuantizerFastScan": ("IVF{0},PRQ16x2x4fsr", "IVF{0},PRQ16x2x4fsr_Nrq2x4"),
    "IndexIVFProductLocalSearchQuantizerFastScan": ("IVF{0},PLSQ16x2x4fsr", "IVF{0},PLSQ16x2x4fsr_Nrq2x4"),
    "IndexResidualQuantizerFastScan": ("RQ32x4fs", "RQ30x4fs_Nrq2x4"),
    "IndexLocalSearchQuantizerFastScan": ("LSQ16x4fs", "LSQ14x4fs_Nrq2x4"),
    "IndexProductResidualQuantizerFastScan": ("PRQ16x2x4fs", "PRQ16x2x4fs_Nrq2x4"),
    "IndexProductLocalSearchQuantizerFastScan": ("PLSQ16x2x4fs", "PLSQ16x2x4fs_Nrq2x4"),
    "IndexIVFFlat": ("IVF{0},Flat", "IDMap2,IVF{0},Flat", "PCA64,IVF{0},Flat"),
    "IndexIVFScalarQuantizer": ("IVF{0},SQ8", "IVF{0},SQ6", "IVF{0},SQ4", "IVF{0},SQfp16", "IVF{0},SQbf16"),
    "IndexIVFRaBitQ": ("IVF{0},RaBitQ", "RR384,IVF{0},RaBitQ"),
    "IndexIVFRaBitQFastScan": ("IVF{0},RaBitQfs", "RR384,IVF{0},RaBitQfs4"),
}  # fmt: skip
"""Factory strings of each family; ``{0}`` is the number of lists."""
QUICK = ("IndexIVFPQ", "IndexIVFPQFastScan", "IndexPQ", "IndexIVFProductResidualQuantizer", "IndexIVFFlat")


def metrics(factory: str) -> tuple[str, ...]:
    """Those that faiss has it for: IMI and norms of two 4-bit codes are for L2, additive FastScan without is not."""
    if factory.startswith("IMI") or factory.endswith("_Nrq2x4"):
        return ("l2",)
    return ("ip",) if re.search(r"(RQ|LSQ)[\dx]+fsr?$", factory) else tuple(METRICS)


def dataset(quick: bool) -> RetrievalData:
    """The packaged sample, or a part of it."""
    data = load_debian_packages()
    return cut(data, QUICK_DOCUMENTS, QUICK_QUERIES) if quick else data


def tuned(factory: str, metric: str, nprobe: int, quick: bool) -> dict[str, Any]:
    """Build an index over the documents, tune it and search it with the test queries: one row."""
    logging.getLogger("faiss").setLevel(logging.ERROR)
    data = dataset(quick)
    n, documents, truth = len(data.documents), data.documents, data.queries[data.test]
    index: Any = faiss.index_factory(documents.shape[1], factory, METRICS[metric])
    index.train(documents)
    if factory.startswith("IDMap"):
        index.add_with_ids(documents, np.arange(n))
    else:
        index.add(documents)
    if "IVF" in factory:
        faiss.extract_index_ivf(index).nprobe = nprobe
    before = evaluate(index, documents, truth, progress=False)
    report = DistillTrainer(
        index, documents, data.queries[data.train], validation_queries=data.queries[data.validation],
        config=DistillConfig(progress=False),
    ).train()  # fmt: skip
    after = evaluate(index, documents, truth, progress=False)
    return {
        "factory": factory,
        "metric": metric,
        "kept": report.kept,
        "reason": report.reason,
        "code_size": after.code_size,
        "before": before.to_dict()["points"],
        "after": after.to_dict()["points"],
        "overlap": [before.own.overlap_at_10, after.own.overlap_at_10],
        "codes": [before.own.codes_scanned, after.own.codes_scanned],
        "p": float(stats.ttest_rel(after.overlap, before.overlap).pvalue) if report.kept else 1.0,
        "seconds": report.seconds["total"],
    }


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    (old, new), (scanned, now) = row["overlap"], row["codes"]
    mark = ("*" if new > old else "†") if row["p"] < LEVEL else " "
    text = f"{row['factory']:28} {row['metric']:>2} {row['code_size']:6} {old:.3f} → {new:.3f}{mark}"
    text += f" {scanned:7.0f} → {now:5.0f} {row['seconds']:6.1f}"
    return text if row["kept"] else f"{text}  left as it was: {row['reason'].split(';')[0]}"


HEAD = f"{'':28} {'':2} {'bytes':>6} {'overlap@10':>14} {'codes scanned':>17} {'s':>6}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first of some families, on 3,000 documents")
    parser.add_argument(
        "--only", metavar="TEXT", nargs="+", default=[""], help="factory strings that contain one of these"
    )
    parser.add_argument("--jobs", type=int, default=1, help="indexes at a time (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()
    data = dataset(args.quick)
    n, nlist = len(data.documents), 64 if args.quick else 128
    lines, rows = [], []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    counts = [len(data.queries[part]) for part in (data.train, data.test)]
    say(f"{n} documents, {counts[0]} training and {counts[1]} test queries; seed 0;")
    say("4 lists probed where there are lists; before → after on the test queries")
    wanted = {}
    for family in QUICK if args.quick else FAMILIES:
        factories = [f.format(nlist) for f in FAMILIES[family]]
        factories = [f for f in factories if any(text in f for text in args.only)][: 1 if args.quick else None]
        wanted[family] = [(f, m) for f in factories for m in metrics(f)]
    threads = torch.get_num_threads() // args.jobs
    made: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {}
    # Local search takes longest to train: not at the end.
    for pair in sorted((pair for pairs in wanted.values() for pair in pairs), key=lambda pair: "LSQ" not in pair[0]):
        made[pair] = partial(tuned, *pair, 4, args.quick)
    with ExitStack() as stack:
        if args.jobs > 1:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes to come
            pool = stack.enter_context(ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")))
            made = {pair: pool.submit(make).result for pair, make in made.items()}
        for family, pairs in wanted.items():
            if pairs:
                say(f"\n{family}\n{HEAD}")
            for pair in pairs:
                rows.append(made[pair]())
                say(line(rows[-1]))
    say(f"\n* better, † worse than before, paired t-test over the test queries, p < {LEVEL}. s: seconds of the tuning,")
    say(f"threads of each: {threads}.")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "families.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (args.output / "families.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
