"""What tuning costs and gains, beside another version of the package.

    python -m benchmarks.speed                                          # the packaged sample
    python -m benchmarks.speed --debian DIR --wordnet DIR --before DIR  # hours; DIR/faiss_distill is the other version

Corpora: the packaged sample, the full Debian set, and a folder with ``documents.npy`` and ``queries.npy``; in both
metrics, with queries and without, or only those ``--only`` names, such as ``sample-l2-documents``. Each tuning is a
process of its own, of the same index and with the same seed; versions take turns. The gate is open. Overlap@10 is that
of test queries: those that the Debian sets set apart, or the last eighth of a log. Writes ``results/speed.txt`` and
``.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill import distill, evaluate
from faiss_distill.datasets import load_debian_packages
from faiss_distill.state import Float32
from faiss_distill.tuning.gate import Gate

METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
FACTORIES = {
    "sample": ("OPQ16,IVF128,PQ16np", 8),
    "debian": ("OPQ16,IVF512,PQ16np", 16),
    "wordnet": ("IVF128,PQ64np", 8),
}
"""Factory string and nprobe of each corpus."""


def corpus(name: str, folder: Path | None) -> tuple[Float32, Float32, Float32]:
    """Documents, training queries and test queries."""
    if name == "wordnet":
        assert folder is not None
        documents, queries = (np.load(folder / f"{what}.npy").astype(np.float32) for what in ("documents", "queries"))
        cut = len(queries) - len(queries) // 8
        return documents, queries[:cut], queries[cut:]
    data = load_debian_packages(folder)
    return data.documents, data.queries[data.train], data.queries[data.test]


def tuned(name: str, folder: Path | None, index: Any, with_queries: bool) -> dict[str, Any]:
    """Tune an index with the version of the package that this process has imported."""
    judge = Gate.judge
    Gate.judge = lambda *given: judge(*given)._replace(kept=True)  # type: ignore[method-assign]
    documents, train, test = corpus(name, folder)
    faiss.extract_index_ivf(index).nprobe = FACTORIES[name][1]
    before = evaluate(index, documents, test, progress=False).own.overlap_at_10
    start = time.perf_counter()
    report = distill(index, documents, train if with_queries else None, seed=0, progress=False)
    return {
        "seconds": time.perf_counter() - start,
        "stages": report.seconds,
        "overlap": [before, evaluate(index, documents, test, progress=False).own.overlap_at_10],
    }


def in_a_process(package: Path, args: list[str]) -> dict[str, Any]:
    """:func:`tuned` in a process of its own, with the package in a folder."""
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, __file__, *args]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debian", type=Path, metavar="DIR", help="the full Debian set")
    parser.add_argument("--wordnet", type=Path, metavar="DIR", help="a folder of documents.npy and queries.npy")
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout of another version")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of these alone")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, folder, path, queries = args.one
        print(json.dumps(tuned(name, Path(folder) if folder else None, faiss.read_index(path), queries == "queries")))
        return
    folders = {"sample": None} | {name: given for name in ("debian", "wordnet") if (given := getattr(args, name))}
    versions = {"now": Path(__file__).parents[1]} | ({"before": args.before.resolve()} if args.before else {})
    head = f"{'':26} {'build s':>8}" + "".join(f" {f'{v}, s':>9} {'overlap@10':>13}" for v in versions) + "   ratio"
    lines, rows = [head], []
    print(head, flush=True)
    for name, folder in folders.items():
        documents = corpus(name, folder)[0]
        for metric, number in METRICS.items():
            names = [f"{name}-{metric}-{what}" for what in ("queries", "documents")]
            names = [full for full in names if not args.only or full in args.only]
            if not names:
                continue
            index: Any = faiss.index_factory(documents.shape[1], FACTORIES[name][0], number)
            start = time.perf_counter()
            index.train(documents)
            index.add(documents)
            build = time.perf_counter() - start
            with tempfile.TemporaryDirectory() as scratch:
                path = str(Path(scratch) / "index.faiss")
                faiss.write_index(index, path)
                for full in names:
                    where = "" if folder is None else str(folder.resolve())
                    one = ["--one", name, where, path, full.rpartition("-")[2]]
                    found = {version: in_a_process(package, one) for version, package in versions.items()}
                    rows.append({"name": full, "build": build, **found})
                    cells = [
                        f" {r['seconds']:9.1f} {r['overlap'][0]:.3f} → {r['overlap'][1]:.4f}" for r in found.values()
                    ]
                    ratio = f" {found['now']['seconds'] / found['before']['seconds']:7.2f}" if args.before else ""
                    lines.append(f"{full:26} {build:8.1f}" + "".join(cells) + ratio)
                    print(lines[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "speed.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (args.output / "speed.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
