"""What ``suggest`` says, against what comes of it: codes of equal bytes, and estimated against measured times.

Codes are compared on the validation queries, as they choose. ``python -m benchmarks.suggestions`` runs on the packaged
sample, which takes some minutes; ``--data DIR`` on the full set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill import DistillConfig, DistillTrainer, operating_points, suggest
from faiss_distill.datasets import RetrievalData, load_debian_packages

CODES = {
    4: ("OPQ4,{ivf},PQ4np", "OPQ8,{ivf},PQ8x4fsr", "{ivf},RQ8x4fsr", "OPQ2,{ivf},PRQ2x4x4fsr"),
    8: ("OPQ8_32,{ivf},PQ8np", "OPQ8,{ivf},PQ8np", "{ivf},PQ8np", "OPQ16,{ivf},PQ16x4fsr", "{ivf},RQ16x4fsr",
        "OPQ4,{ivf},PRQ4x4x4fsr"),
    16: ("OPQ16_64,{ivf},PQ16np", "OPQ16,{ivf},PQ16np", "{ivf},PQ16np", "OPQ32,{ivf},PQ32x4fsr", "{ivf},RQ32x4fsr",
         "OPQ8,{ivf},PRQ8x4x4fsr"),
    32: ("OPQ32_128,{ivf},PQ32np", "OPQ32,{ivf},PQ32np", "{ivf},PQ32np", "OPQ64,{ivf},PQ64x4fsr", "{ivf},RQ64x4fsr",
         "OPQ16,{ivf},PRQ16x4x4fsr"),
}  # fmt: skip
"""By bytes: 4 dimensions a segment as in the guidelines, 8-bit codes with OPQ and without, and FastScan with 4:
product codes with OPQ, residual ones of whole vectors, and of parts of two bytes with OPQ."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the full set (default: the packaged sample)")
    parser.add_argument("--bytes", type=int, nargs="+", default=list(CODES), help="codes to compare (default: all)")
    args = parser.parse_args()
    data = load_debian_packages(args.data)
    n, d = data.documents.shape
    print(f"{n} documents, inner product, {len(data.queries[data.validation])} validation queries, seed 0\n")
    print(f"{'':34}{'overlap@10':>14}{'ms/query':>10}{'MB':>7}{'build s':>9}{'tuning s':>10}  estimated")
    for size in args.bytes:
        suggested = suggest(n, d, size, faiss.METRIC_INNER_PRODUCT)
        ivf = next(token for token in suggested.factory.split(",") if token.startswith("IVF"))
        for pattern in CODES[size]:
            factory = pattern.format(ivf=ivf)
            same = f"{factory},Distill" == suggested.factory
            line = _line(data, factory, suggested.nprobe or 1)
            expected = (
                f"  {suggested.total_bytes / 1e6:.1f} MB, {suggested.build_seconds:.0f} s and "
                f"{suggested.tune_seconds:.0f} s"
            )
            print(f"{size:2} bytes  {factory:25}{line}{expected if same else ''}", flush=True)


def _line(data: RetrievalData, factory: str, nprobe: int) -> str:
    """Builds, tunes and measures one: before → after, of the validation queries."""
    start = time.perf_counter()
    index: Any = faiss.index_factory(data.documents.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(data.documents)
    index.add(data.documents)
    build = time.perf_counter() - start
    faiss.extract_index_ivf(index).nprobe = nprobe
    judges = np.asarray(data.queries[data.validation])
    config = DistillConfig(seed=0, progress=False)
    start = time.perf_counter()
    report = DistillTrainer(
        index, data.documents, data.queries[data.train], validation_queries=judges, config=config
    ).train()
    tuning = time.perf_counter() - start
    (point,) = operating_points(index, data.documents, judges, parameters={"nprobe": [nprobe]}, progress=False).points
    gain = f"{report.before.own.overlap_at_10:.3f} → {report.after.own.overlap_at_10:.3f}"
    size = faiss.serialize_index(index).nbytes / 1e6
    return f"{gain:>14}{point.latency_ms:10.3f}{size:7.1f}{build:9.0f}{tuning:10.0f}"


if __name__ == "__main__":
    main()
