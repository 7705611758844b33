"""What vectors that come later lose, what adding them with their codes saves, and when another tuning is worth it.

    python -m benchmarks.growth               # the packaged sample
    python -m benchmarks.growth --data DIR    # the full Debian set
    python -m benchmarks.growth --quick       # a part of the sample

An index is trained by faiss and tuned on 60 % of the documents; then the others arrive. First, what each way to take
them in finds, searched with the test queries. Then, what ``drift`` says, beside what another tuning gains for the test
queries. For new documents that is the tuning of all at once, from the untuned index; for new queries one from the tuned
index, with a log of the same kind: that of before, one of another distribution (as in ``benchmarks.conditions``), and
one half-way between these. ``drift`` sees validation queries alone, and its threshold was chosen on these. Writes
``results/growth.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.conditions import unit, with_other_queries
from faiss_distill import distill
from faiss_distill.datasets import load_debian_packages
from faiss_distill.metrics import recall
from faiss_distill.state import Float32

OLD, NPROBE = 0.6, 8


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the sample")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the full Debian set")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()
    data = load_debian_packages(args.data)
    x = data.documents[:4000] if args.quick else data.documents
    n, n_old = len(x), int(OLD * len(x))
    x = x[np.random.default_rng(0).permutation(n)]
    log, test, judges = (data.queries[part] for part in (data.train, data.test, data.validation))
    # Half of the validation queries judge the tuning; the others are what comes later.
    judges, later = judges[::2], slice(1, None, 2)
    factory = f"IVF{512 if n > 50_000 else 128},PQ16np"
    trained: Any = faiss.index_factory(x.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    trained.train(x[:n_old])

    def filled(count: int) -> Any:
        index: Any = faiss.clone_index(trained)
        index.add(x[:count])
        index.nprobe = NPROBE
        return index

    def found(index: Any, queries: Float32 = test) -> float:
        truth = faiss.knn(queries, x, 10, faiss.METRIC_INNER_PRODUCT)[1]
        return float(recall(index.search(queries, 10)[1], truth).mean())

    def tuned(index: Any, queries: Float32 = log, **options: Any) -> Any:
        return distill(index, x[: index.ntotal], queries, progress=False, **options)

    rows: list[dict[str, Any]] = []

    def row(name: str, index: Any, seconds: float | None = None) -> Any:
        rows.append({"name": name, "overlap": found(index), "seconds": seconds})
        return index

    row("untuned, all", filled(n))
    old = filled(n_old)
    report = tuned(old, validation_queries=judges)
    if report.parameters is None:
        raise SystemExit(f"nothing was learned on {n_old} documents: {report.reason}")
    parameters, spent = report.parameters, report.seconds["total"]
    added = faiss.clone_index(old)
    start = time.perf_counter()
    added.add(x[n_old:])
    row("tuned, then index.add", added, time.perf_counter() - start)
    grown = faiss.clone_index(old)
    start = time.perf_counter()
    parameters.add(grown, x[n_old:], progress=False)
    row("tuned, then parameters.add", grown, time.perf_counter() - start)
    retuned = faiss.clone_index(grown)
    short = tuned(retuned, validation_queries=judges, epochs=1)
    row("and retuned, epochs=1", retuned, short.seconds["total"])
    whole = filled(n)
    full = tuned(whole, validation_queries=judges)
    row("all tuned at once", whole, full.seconds["total"])

    verdicts: list[dict[str, Any]] = []

    def verdict(name: str, before: Any, after: Any, asked: Float32, **new: Any) -> None:
        start = time.perf_counter()
        said = parameters.drift(before, x[: before.ntotal], progress=False, **new)
        lost = (said.queries or said.documents).lost
        verdicts.append({
            "name": name, "retune": said.retune, "lost": lost, "seconds": time.perf_counter() - start,
            "gain": found(after, asked) - found(before, asked), "reason": said.reason,
        })  # fmt: skip

    arrived = np.arange(n_old, n)
    verdict("documents by index.add", added, whole, test, new_ids=arrived)
    verdict("documents by parameters.add", grown, whole, test, new_ids=arrived)
    other = with_other_queries(data).queries
    for name, share in (("queries of the same log", 0.0), ("half-way to the others", 0.5), ("other queries", 1.0)):
        moved = unit(data.queries + share * (other - data.queries))
        mine = faiss.clone_index(whole)
        tuned(mine, moved[data.train])
        verdict(name, whole, mine, moved[data.test], queries=moved[data.validation][later])
    lines = [
        f"{n} documents, the last {n - n_old} of them later; {len(log)} training and {len(test)} test queries; "
        f"{factory}, {NPROBE} lists probed; seed 0; the first tuning took {spent:.0f} s",
        f"{'':30}{'overlap@10':>11}{'seconds':>9}",
    ]
    for one in rows:
        seconds = "" if one["seconds"] is None else f"{one['seconds']:.1f}"
        lines.append(f"{one['name']:30}{one['overlap']:11.3f}{seconds:>9}")
    lines += ["", f"{'drift, of what is new':30}{'lost':>11}{'retune':>9}{'gain of it':>12}{'seconds':>9}"]
    for one in verdicts:
        lines.append(
            f"{one['name']:30}{one['lost']:+11.3f}{'yes' if one['retune'] else 'no':>9}{one['gain']:+12.3f}"
            f"{one['seconds']:9.1f}"
        )
    lines = [line.rstrip() for line in lines]
    print(*lines, sep="\n")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "growth.txt").write_text("\n".join(lines) + "\n")
    (args.output / "growth.json").write_text(json.dumps({"rows": rows, "verdicts": verdicts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
