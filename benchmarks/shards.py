"""What parameters learned on a sample are worth in the shards of a corpus.

    python -m benchmarks.shards               # the packaged sample in four shards
    python -m benchmarks.shards --data DIR    # the full Debian set
    python -m benchmarks.shards --quick       # a part of the sample

One training by faiss, without polysemous training. A sample of the documents is tuned, and what was learned is applied
to each of four shards; these are merged and searched with the test queries, beside the untuned shards and the whole
corpus tuned at once. Nothing is chosen on test queries. Writes ``results/shards.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill import distill
from faiss_distill.datasets import load_debian_packages
from faiss_distill.metrics import recall
from faiss_distill.state import Int64

SHARDS, NPROBE = 4, 8
SHARES = (0.25, 0.5, 1.0)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the sample")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the full Debian set")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()
    data = load_debian_packages(args.data)
    x, queries, test = data.documents, data.queries[data.train], data.queries[data.test]
    x = x[:4000] if args.quick else x
    n, order = len(x), np.random.default_rng(0).permutation(len(x))
    shards = [np.sort(order[i::SHARDS]) for i in range(SHARDS)]
    factory = f"IVF{512 if n > 50_000 else 128},PQ16np"
    trained = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    trained.train(x)
    truth = faiss.knn(test, x, 10, faiss.METRIC_INNER_PRODUCT)[1]

    def filled(rows: Int64) -> Any:
        index: Any = faiss.clone_index(trained)
        index.add_with_ids(x[rows], rows)
        index.nprobe = NPROBE
        return index

    def found(parts: list[Any]) -> float:
        for part in parts[1:]:
            faiss.merge_into(parts[0], part, shift_ids=False)
        return float(recall(parts[0].search(test, 10)[1], truth).mean())

    rows: list[dict[str, Any]] = [{"name": "untuned", "overlap": found([filled(part) for part in shards])}]
    for share in SHARES:
        some = np.sort(order[: int(share * n)])
        small = filled(some)
        report = distill(small, x[some], queries, ids=some, progress=False)
        if report.parameters is None:
            raise SystemExit(f"nothing was learned on {len(some)} documents: {report.reason}")
        if share == 1:
            rows.append({"name": "whole, tuned at once", "overlap": found([small]), "tuning": report.seconds["total"]})
        parts = [filled(part) for part in shards]
        start = time.perf_counter()
        better = [
            report.parameters.apply(part, x[ids], ids=ids, keep=True, progress=False).interval[0] > 0
            for part, ids in zip(parts, shards, strict=True)
        ]
        seconds = time.perf_counter() - start
        rows.append({
            "name": f"applied from {len(some)}", "overlap": found(parts), "tuning": report.seconds["total"],
            "applying": seconds, "better": sum(better),
        })  # fmt: skip
    lines = [
        f"{n} documents in {SHARDS} shards, {len(queries)} training and {len(test)} test queries; {factory}, "
        f"{NPROBE} lists probed; seed 0",
        f"{'':24}{'overlap@10':>11}{'tuning s':>10}{'all shards s':>14}{'shards better':>15}",
    ]
    for row in rows:
        tuning, applying, better_in = (row.get(key) for key in ("tuning", "applying", "better"))
        cells = [f"{tuning:10.0f}" if tuning else " " * 10, f"{applying:14.0f}" if applying else " " * 14]
        lines.append(
            f"{row['name']:24}{row['overlap']:11.3f}{''.join(cells)}{'' if better_in is None else better_in:>15}"
        )
    print(*lines, sep="\n")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "shards.txt").write_text("\n".join(lines) + "\n")
    (args.output / "shards.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
