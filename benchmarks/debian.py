"""Tune indexes over the Debian set and report on its test queries.

    python -m benchmarks.debian                    # the packaged sample
    python -m benchmarks.debian --data DIR         # the full set
    python -m benchmarks.debian --data DIR --seeds 3

Trains on the training queries, chooses the epoch on the validation queries, and reports on the test queries, which
take part in nothing else. For each index: faiss's own train and add, timed, once for all cases that start from it;
then, for each seed, the tuning, timed. Writes ``results/debian.json`` and prints a table: the mean over seeds, and with
more than one ± half their range. The untuned index is the baseline in the same row.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.suite.experiment import METRICS
from faiss_distill import DistillTrainer, Evaluation, evaluate
from faiss_distill.config import DistillConfig
from faiss_distill.datasets import RetrievalData, load_debian_packages

NPROBES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Case:
    """One index and one source of queries."""

    factory: str
    metric: str
    with_queries: bool = True


def cases(nlist: int) -> list[Case]:
    """What is measured."""
    opq, plain = f"OPQ16,IVF{nlist},PQ16np", f"IVF{nlist},PQ16np"
    return [Case(opq, "ip"), Case(opq, "ip", with_queries=False), Case(opq, "l2"), Case(plain, "ip")]


def build(factory: str, metric: str, documents: np.ndarray, nprobe: int) -> tuple[Any, float]:
    """An index over ``documents``, and the seconds that its train and add took."""
    index = faiss.index_factory(documents.shape[1], factory, METRICS[metric])
    start = time.perf_counter()
    index.train(documents)
    index.add(documents)
    seconds = time.perf_counter() - start
    faiss.extract_index_ivf(index).nprobe = nprobe
    return index, seconds


def tune(index: Any, data: RetrievalData, with_queries: bool, seed: int) -> tuple[Any, float]:
    """A tuned copy of ``index``, and the seconds it took, teacher and evaluation included."""
    index = faiss.clone_index(index)
    queries: dict[str, Any] = {}
    if with_queries:
        queries = {"queries": data.queries[data.train], "validation_queries": data.queries[data.validation]}
    start = time.perf_counter()
    report = DistillTrainer(index, data.documents, **queries, config=DistillConfig(seed=seed)).train()
    seconds = time.perf_counter() - start
    print(f"  seed {seed}: {report.reason}; {seconds:.0f} s", flush=True)
    return index, seconds


def test(index: Any, data: RetrievalData) -> Evaluation:
    """The index on the test queries."""
    return evaluate(index, data.documents, data.queries[data.test], relevant=data.relevant[data.test], nprobe=NPROBES)


def row(before: Evaluation, after: list[Evaluation], nprobe: int) -> str:
    """One line of the table."""
    cells = [f"{nprobe:6}"]
    for field, f in (
        ("overlap_at_10", ".3f"),
        ("nearest_in_10", ".3f"),
        ("mrr_at_10", ".3f"),
        ("codes_scanned", ".0f"),
    ):
        old = next(getattr(p, field) for p in before.points if p.nprobe == nprobe)
        new = [next(getattr(p, field) for p in a.points if p.nprobe == nprobe) for a in after]
        spread = f" ±{(max(new) - min(new)) / 2:{f}}" if len(new) > 1 else ""
        cells.append(f"{old:{f}} → {np.mean(new):{f}}{spread}".rjust(22))
    return "".join(cells)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the full set (default: the packaged sample)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: 1)")
    parser.add_argument("--nprobe", type=int, default=16, help="nprobe that the tuning is judged at (default: 16)")
    parser.add_argument("--output", type=Path, default=Path("results/debian.json"))
    args = parser.parse_args()
    data = load_debian_packages(args.data)
    nlist = 512 if args.data else 128
    print(f"{len(data.documents)} documents; {len(data.queries[data.test])} test queries; seeds 0..{args.seeds - 1}")
    results: list[dict[str, Any]] = []
    built: dict[tuple[str, str], tuple[Any, float]] = {}
    for case in cases(nlist):
        source = "real queries" if case.with_queries else "no queries: documents stand in"
        print(f"\n{case.factory} {case.metric}, {source}", flush=True)
        key = (case.factory, case.metric)
        if key not in built:
            built[key] = build(*key, data.documents, args.nprobe)
        index, build_seconds = built[key]
        before = test(index, data)
        after, seconds = [], []
        for seed in range(args.seeds):
            tuned, took = tune(index, data, case.with_queries, seed)
            after.append(test(tuned, data))
            seconds.append(took)
        titles = ("overlap@10", "nearest in 10", "MRR@10 (labels)", "codes scanned")
        print("nprobe" + "".join(t.rjust(22) for t in titles))
        for nprobe in NPROBES:
            print(row(before, after, nprobe))
        print(f"faiss train + add {build_seconds:.0f} s, tuning {np.mean(seconds):.0f} s", flush=True)
        results.append(
            {
                **vars(case),
                "build_seconds": build_seconds,
                "tune_seconds": seconds,
                "before": before.to_dict(),
                "after": [a.to_dict() for a in after],
            }
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nwrote {args.output}")


if __name__ == "__main__":
    main()
