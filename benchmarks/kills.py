"""What it costs to be killed: the command line, undisturbed and killed at random moments, with a work folder.

    python -m benchmarks.kills               # the packaged sample, ten kills
    python -m benchmarks.kills --data DIR    # the full Debian set
    python -m benchmarks.kills --quick       # a part of the sample, two kills

One thread, so that both runs write the same index bit for bit, which is checked. Each kill is a SIGKILL, after a time
drawn between 0 and twice an undisturbed run's share of the rest. Writes ``results/kills.txt`` and ``.json``.
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

from faiss_distill.datasets import load_debian_packages


def prepare(folder: Path, data: Path | None, n: int | None) -> None:
    """An index, its vectors and queries, in files."""
    given = load_debian_packages(data)
    x = given.documents[:n]
    nlist = 512 if len(x) > 50_000 else 128
    opq = "OPQ16," if n is None else ""  # it takes longer to train than a part to be tuned
    index: Any = faiss.index_factory(x.shape[1], f"{opq}IVF{nlist},PQ16np", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    faiss.extract_index_ivf(index).nprobe = 8
    faiss.write_index(index, str(folder / "index.faiss"))
    np.save(folder / "embeddings.npy", x)
    np.save(folder / "queries.npy", given.queries[given.train])


def start(folder: Path, output: str, *more: str) -> subprocess.Popen[bytes]:
    """The command, on one thread."""
    command = [sys.executable, "-m", "faiss_distill", "tune", "index.faiss", "embeddings.npy"]
    command += ["--queries", "queries.npy", "-o", output, *more]
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def timed(process: subprocess.Popen[bytes], limit: float | None = None) -> tuple[float, bool]:
    """Seconds until it ended, and whether it had to be killed for that."""
    begin = time.perf_counter()
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return time.perf_counter() - begin, True
    if status:
        raise SystemExit(f"the command failed: {status}")
    return time.perf_counter() - begin, False


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a part of the sample, two kills")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the full Debian set")
    parser.add_argument("--kills", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()
    kills, rng = 2 if args.quick else args.kills, np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.data, 3000 if args.quick else None)
        alone, _ = timed(start(folder, "alone.faiss"))
        total, survived = 0.0, 0
        while True:
            limit = float(rng.uniform(0, 2 * alone / kills)) if survived < kills else None
            seconds, killed = timed(start(folder, "killed.faiss", "--workdir", "work"), limit)
            total += seconds
            if not killed:
                break
            survived += 1
        same = (folder / "alone.faiss").read_bytes() == (folder / "killed.faiss").read_bytes()
    cost = (total - alone) / max(survived, 1)
    row = {"alone": alone, "kills": survived, "total": total, "cost": cost, "same": same, "seed": args.seed}
    text = (
        f"undisturbed {alone:.0f} s; killed {survived} times {total:.0f} s in all, {total / alone:.2f} x; a kill costs "
        f"{cost:.1f} s\nso ten kills cost a fifth of a run of {50 * cost / 60:.0f} minutes\n"
        f"the index is {'the same bit for bit' if same else 'ANOTHER'}; seed {args.seed}"
    )
    print(text)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "kills.txt").write_text(text + "\n")
    (args.output / "kills.json").write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
