"""What a router is worth: an index untuned, tuned, and tuned with ``router=True``, by lists probed and bytes a code.

    python -m benchmarks.router                    # the packaged sample
    python -m benchmarks.router --bytes 64 --nprobe 1 --metrics ip
    python -m benchmarks.router --quick            # on a part of it, codes of 4 bits a part

Each index is built by faiss, tuned with the defaults and the never-worse gate on, and searched with the test queries,
which take part in nothing else. MB are those of the whole index, the router among them. Writes
``results/router.txt``.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import faiss
from scipy import stats

from benchmarks.families import dataset
from benchmarks.suite.experiment import METRICS
from benchmarks.suite.results import LEVEL
from faiss_distill import DistillConfig, DistillTrainer, Evaluation, describe, evaluate
from faiss_distill.datasets import RetrievalData

HEAD = f"metric bytes nprobe  {'':18} overlap@10 {'codes scanned':>13} ms/query     MB"


def built(data: RetrievalData, factory: str, metric: str, rotation: Any) -> Any:
    """An index of faiss over the documents, behind a rotation or None."""
    index: Any = faiss.index_factory(data.documents.shape[1], factory, METRICS[metric])
    if rotation is not None:
        index = faiss.IndexPreTransform(rotation, index)
    index.train(data.documents)
    index.add(data.documents)
    return index


def rotation_for(data: RetrievalData, size: int) -> Any:
    """OPQ's for codes of this size, which is the same for both metrics and takes most of the time of a build."""
    rotation = faiss.OPQMatrix(data.documents.shape[1], size)
    rotation.train(data.documents)
    return rotation


def lines(data: RetrievalData, index: Any, metric: str, size: int, nprobe: int) -> list[str]:
    """Three rows: the index, which stays as it is, and two tuned copies of it."""
    faiss.extract_index_ivf(index).nprobe = nprobe
    found: list[str] = []
    plain: Evaluation | None = None
    for name, router in (("untuned", None), ("tuned", False), ("tuned with router", True)):
        copy, kept = faiss.clone_index(index), True
        if router is not None:
            config = DistillConfig(router=router, progress=False)
            kept = DistillTrainer(
                copy, data.documents, data.queries[data.train], validation_queries=data.queries[data.validation],
                config=config,
            ).train().kept  # fmt: skip
        point = evaluate(copy, data.documents, data.queries[data.test], progress=False)
        mark = ""
        if router and plain is not None:
            better = stats.ttest_rel(point.overlap, plain.overlap).pvalue < LEVEL
            mark = "*" if better and point.own.overlap_at_10 > plain.own.overlap_at_10 else "†" if better else ""
        plain = point
        own, described = point.own, describe(copy)
        found.append(
            f"{metric:>6} {size:5} {nprobe:6}  {name:18} {own.overlap_at_10:10.4f}{mark:1}{own.codes_scanned:13.0f} "
            f"{own.latency_ms:8.3f} {described.total_bytes / 1e6:6.2f}{'' if kept else '  left as it was'}"
        )
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3,000 documents, 64 lists, codes of 4 bits")
    parser.add_argument("--bytes", type=int, nargs="+", default=[16, 32, 64], help="of a code (default: 16 32 64)")
    parser.add_argument("--nprobe", type=int, nargs="+", default=[1, 2, 4], help="lists probed (default: 1 2 4)")
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS), help="default: both")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()
    logging.getLogger("faiss").setLevel(logging.ERROR)
    data, nlist = dataset(args.quick), 64 if args.quick else 128
    (n, d), said = data.documents.shape, []

    def say(text: str) -> None:
        print(text, flush=True)
        said.append(text)

    counts = [len(data.queries[part]) for part in (data.train, data.test)]
    say(f"{n} documents, {counts[0]} training and {counts[1]} test queries, {nlist} lists; seed 0")
    say(f"a router takes {4 * nlist * d} bytes, {4 * nlist * d / n:.1f} a vector here\n\n{HEAD}")
    for size in args.bytes:
        codes, rotation = (f"PQ{2 * size}x4np", None) if args.quick else (f"PQ{size}np", rotation_for(data, size))
        for metric in args.metrics:
            index = built(data, f"IVF{nlist},{codes}", metric, rotation)
            for nprobe in args.nprobe:
                for line in lines(data, index, metric, size, nprobe):
                    say(line)
    say(f"\n* better, † worse than tuned without a router, paired t-test over the test queries, p < {LEVEL}.")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "router.txt").write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
