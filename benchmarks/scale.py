"""What tuning costs beside faiss's build, at 50,000, 200,000 and a million vectors.

    python -m benchmarks.scale                      # hours
    python -m benchmarks.scale --quick              # two small sizes
    python -m benchmarks.scale --dimensions 128 --sizes 50000 200000 --runs 1
    python -m benchmarks.scale --data vectors.npy --dimensions 768
    python -m benchmarks.scale --memory --data vectors.npy --dimensions 768
    python -m benchmarks.scale --memory --bounded --sizes 1000000 --data vectors.npy --dimensions 768

Vectors are the Debian documents at 128 dimensions (principal axes; ``--data DIR`` for the full set), or those of
another file, as far as they go, and beyond them points between a document and one of its nearest neighbours, with noise
of half their distance; the table says where. Documents are used as queries. Each run is a process of its own, which
builds an index with faiss, without polysemous training, and tunes it; the table has the run of the median ratio.
Documents are counted as often as they are encoded, a second, beside those that faiss's ``add`` places and encodes.
Growth is the exponent ``b`` of seconds ~ n^b, fitted to the totals. Writes ``results/scale.txt`` and ``.json``.

``--memory`` measures what tuning takes beside the index and a memory-mapped float16 file of the vectors: the peak of
the pages that the system can't drop (``RssAnon``), and of all that were resident, those of mapped files included; first
without a bound, and then with the lowest ``max_memory`` that is taken, when codes and lists are mapped from a folder.
An index is trained on 100,000 vectors at most. Writes ``results/memory.txt`` and ``.json``. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import faiss
import numpy as np
from torch import Tensor

from faiss_distill import DistillConfig, DistillTrainer
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index
from faiss_distill.learning.codes.product import QueryAwareEncoder
from faiss_distill.state import Float32
from faiss_distill.tuning.memory import needed
from faiss_distill.tuning.split import STAND_INS

SIZES, QUICK_SIZES = (50_000, 200_000, 1_000_000), (4_000, 8_000)
TRAINED_ON = 100_000
"""Vectors at most that faiss trains an index on whose memory is measured."""
NEIGHBOURS = 10
"""Of a document, one of which the points beyond the documents lie towards."""
STAGES = ("check", "teacher", "training", "lists", "codes", "judging", "commit")


def real_vectors(d: int, data: Path | None) -> Float32:
    """Real vectors of ``d`` dimensions and unit length, ``(n, d)``."""
    if data is not None and data.suffix == ".npy":
        documents = np.load(data).astype(np.float32)
    else:
        documents = load_debian_packages(data).documents
    if d > documents.shape[1]:
        raise SystemExit(f"--dimensions: expected at most {documents.shape[1]}, as the documents have, got {d}")
    real = documents
    if d < documents.shape[1]:
        axes = faiss.PCAMatrix(documents.shape[1], d)
        axes.train(documents)
        real = axes.apply(documents)
    unit: Float32 = real / np.linalg.norm(real, axis=1, keepdims=True)
    return unit


def corpus(n: int, d: int, data: Path | None) -> tuple[Float32, int]:
    """``n`` vectors of ``d`` dimensions, and how many of them are real: those come first."""
    real = real_vectors(d, data)
    return np.concatenate(list(grown(real, n))), min(n, len(real))


def grown(real: Float32, n: int) -> Iterator[Float32]:
    """The first ``n`` of the real vectors, and if these are too few others between them, of unit length, in blocks."""
    rng = np.random.default_rng(0)
    yield np.ascontiguousarray(real[:n])
    if n <= len(real):
        return
    near = faiss.knn(real, real, NEIGHBOURS + 1)[1][:, 1:]
    for start in range(len(real), n, 2**16):
        k = min(2**16, n - start)
        one = rng.integers(0, len(real), k)
        other = near[one, rng.integers(0, NEIGHBOURS, k)]
        way = real[other] - real[one]
        noise = rng.standard_normal(way.shape, dtype=np.float32)
        noise *= 0.5 * np.linalg.norm(way, axis=1, keepdims=True) / np.sqrt(real.shape[1])
        mixed = real[one] + rng.random((k, 1), dtype=np.float32) * way + noise
        yield mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def lists_for(n: int) -> int:
    """Lists of an index over ``n`` vectors: a power of two near ``4 sqrt(n)``."""
    return int(2 ** np.round(np.log2(4 * np.sqrt(n))))


def measured(n: int, d: int, data: Path | None, device: str) -> dict[str, Any]:
    """One build and one tuning, in this process."""
    x, real = corpus(n, d, data)
    factory = f"OPQ16,IVF{lists_for(n)},PQ16np"
    index: Any = faiss.index_factory(d, factory, faiss.METRIC_INNER_PRODUCT)
    start = time.perf_counter()
    index.train(x)
    trained = time.perf_counter()
    index.add(x)
    added = time.perf_counter()
    faiss.extract_index_ivf(index).nprobe = 16
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = DistillTrainer(index, x, config=DistillConfig(progress=False, device=device))
    with counted() as encoded:
        report = trainer.train()
    return {
        "n": n,
        "d": d,
        "real": real,
        "factory": factory,
        "build": added - start,
        "add_rate": n / (added - trained),
        "code_rate": sum(encoded) / report.seconds["codes"],
        "tune": report.seconds["total"],
        "seconds": report.seconds,
        "tenfold": report.seconds_tenfold,
        "compiled": report.compiled,
        "teacher_lists": report.teacher_lists,
        "teacher_agreement": report.teacher_agreement,
        "overlap": [report.before.own.overlap_at_10, report.after.own.overlap_at_10],
        "kept": report.kept,
        "peak_mb": [before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024],
    }


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many documents are encoded inside, call by call."""
    counts: list[int] = []
    real = QueryAwareEncoder.__call__

    def counting(self: QueryAwareEncoder, vectors: Tensor, *others: Tensor | None) -> Tensor:
        counts.append(len(vectors))
        return real(self, vectors, *others)  # type: ignore[arg-type]

    with mock.patch.object(QueryAwareEncoder, "__call__", counting):
        yield counts


def in_a_process(n: int, d: int, data: Path | None, *options: object) -> dict[str, Any]:
    """What this module prints for one size in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", n, d, *(["--data", data] if data else []), *options]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def write_files(n: int, d: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Vectors as float16 and an index that holds them, in files: what makes them stays out of what is measured."""
    real = real_vectors(d, data)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (n, d))
    start = 0
    for block in grown(real, n):
        vectors[start : start + len(block)] = block
        start += len(block)
    index: Any = faiss.index_factory(d, f"IVF{lists_for(n)},PQ16np", faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(np.random.default_rng(0).permutation(n)[:TRAINED_ON])
    index.train(vectors[sample].astype(np.float32))
    for start in range(0, n, 2**16):
        index.add(vectors[start : start + 2**16].astype(np.float32))
    index.nprobe = 16
    faiss.write_index(index, str(folder / "index.faiss"))
    lowest = needed(open_index(index), min(n, STAND_INS), DistillConfig())[1]
    return {"real": min(n, len(real)), "lowest": lowest}


def memory_of(folder: Path, bound: int | None) -> dict[str, Any]:
    """One tuning of the index in a folder, in this process, with what it takes beside the index."""
    index: Any = faiss.read_index(str(folder / "index.faiss"))
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    config = DistillConfig(progress=False, max_memory=bound)
    with TemporaryDirectory(dir=folder) as work, watched() as peaks:
        report = DistillTrainer(index, vectors, config=config, workdir=work if bound else None).train()
    return {
        "n": len(vectors),
        "d": vectors.shape[1],
        "index_mb": (folder / "index.faiss").stat().st_size / 2**20,
        "bound_mb": None if bound is None else bound / 2**20,
        "estimate_mb": [
            size / 2**20 for size in needed(open_index(index), report.n_train + report.n_validation, config)
        ],
        "peak_mb": [peak / 2**20 for peak in peaks],
        "tune": report.seconds["total"],
        "overlap": [report.before.own.overlap_at_10, report.after.own.overlap_at_10],
    }


@contextmanager
def watched() -> Iterator[list[int]]:
    """Bytes of pages that can't be dropped, and of all that are resident, at most, beyond what they were before."""

    def taken() -> tuple[int, int]:
        status = Path("/proc/self/status").read_text()
        anonymous, resident = (re.search(rf"{name}:\s+(\d+)", status) for name in ("RssAnon", "VmRSS"))
        assert anonymous is not None
        assert resident is not None
        return 1024 * int(anonymous[1]), 1024 * int(resident[1])

    before, peaks, done = taken(), [0, 0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks[:] = [max(peak, now - was) for peak, now, was in zip(peaks, taken(), before, strict=True)]

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def memory(sizes: Sequence[int], dimensions: Sequence[int], data: Path | None, bounded: bool, output: Path) -> None:
    """What tuning takes at several sizes, without a bound unless ``bounded``, and with the lowest."""
    head = (
        f"{'n':>8} {'d':>4} {'index MB':>9} {'bound MB':>9} {'estimated':>10} {'peak MB':>8} {'with mapped':>12} "
        f"{'tuning s':>9}    overlap@10"
    )
    lines, rows = [head], []
    print(head, flush=True)
    for d in dimensions:
        for n in sizes:
            with TemporaryDirectory() as name:
                folder = Path(name)
                made = in_a_process(n, d, data, "--write", folder)
                lowest = ["--bound", made["lowest"]]
                for bound in [lowest] if bounded else [[], lowest]:
                    rows.append({**in_a_process(n, d, data, "--measure", folder, *bound), **made})
                    lines.append(memory_line(rows[-1]))
                    print(lines[-1], flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "memory.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (output / "memory.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def memory_line(row: dict[str, Any]) -> str:
    """One row as text."""
    bound, (columns, rest) = row["bound_mb"], row["estimate_mb"]
    estimated, (anonymous, resident), (old, new) = rest + (0 if bound else columns), row["peak_mb"], row["overlap"]
    return (
        f"{row['n']:8} {row['d']:4} {row['index_mb']:9.0f} {'' if bound is None else f'{bound:.0f}':>9} "
        f"{estimated:10.0f} {anonymous:8.0f} {resident:12.0f} {row['tune']:9.0f}    {old:.3f} → {new:.3f}"
    )


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run whose ratio of tuning to build is in the middle."""
    return sorted(runs, key=lambda row: row["tune"] / row["build"])[len(runs) // 2]


def growth(sizes: list[int], seconds: list[float]) -> float:
    """The exponent ``b`` of seconds ~ n^b, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    spent = "".join(f" {row['seconds'][stage]:8.1f}" for stage in STAGES)
    (old, new), (before, peak) = row["overlap"], row["peak_mb"]
    rates = f"{row['add_rate']:9.0f} {row['code_rate']:8.0f}"
    made = "" if row["real"] == row["n"] else f"  {row['real']} real"
    return (
        f"{row['n']:8} {row['d']:4} {row['factory']:22} {row['build']:8.1f} {row['tune']:8.1f} "
        f"{row['tune'] / row['build']:6.2f}{spent} {rates} {before:7.0f} {peak:7.0f}"
        f" {old:.3f} → {new:.3f}{made}"
    )


HEAD = (
    f"{'n':>8} {'d':>4} {'':22} {'build s':>8} {'tuning s':>8} {'ratio':>6}"
    + "".join(f" {stage:>8}" for stage in STAGES)
    + f" {'add/s':>9} {'codes/s':>8} {'MB':>7} {'peak MB':>7}    overlap@10"
)


def one(n: int, d: int, args: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own is for."""
    if args.write:
        return write_files(n, d, args.data, args.write)
    if args.measure:
        return memory_of(args.measure, args.bound)
    return measured(n, d, args.data, args.device)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small sizes, once")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the full Debian set, or a .npy of others")
    parser.add_argument("--device", default="cpu", help="that tuning runs on (default: cpu)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="vectors")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128], help="of the vectors (default: 128)")
    parser.add_argument("--runs", type=int, default=3, help="of each, of which the median is shown (default: 3)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    parser.add_argument("--bounded", action="store_true", help="with the lowest bound only")
    for hidden in ("--write", "--measure"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--bound", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        n, d = args.one
        print(json.dumps(one(n, d, args)))
        return
    sizes, runs = (QUICK_SIZES, 1) if args.quick else (args.sizes, args.runs)
    if args.memory:
        memory(sizes, args.dimensions, args.data, args.bounded, args.output)
        return
    lines, rows = [HEAD], []
    print(HEAD, flush=True)
    for d in args.dimensions:
        for n in sizes:
            rows.append(median([in_a_process(n, d, args.data, "--device", args.device) for _ in range(runs)]))
            lines.append(line(rows[-1]))
            print(lines[-1], flush=True)
        mine = [row for row in rows if row["d"] == d]
        if len(mine) > 1:
            exponents = [growth([row["n"] for row in mine], [row[what] for row in mine]) for what in ("build", "tune")]
            lines.append(f"growth at d = {d}: build n^{exponents[0]:.2f}, tuning n^{exponents[1]:.2f}")
            print(lines[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "scale.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (args.output / "scale.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
