"""What several processes gain over one, and what they send each other.

    python -m benchmarks.processes                       # 50,000 vectors of 128 dimensions grown from the sample
    python -m benchmarks.processes --data DIR --queries  # the full Debian set with its training queries
    python -m benchmarks.processes --hosts               # two network namespaces as two hosts, too; needs root
    python -m benchmarks.processes --quick               # 4,000 vectors

One index, built by faiss and read anew by each run, is tuned by one process with one thread, then with as many threads
as there are cores, then by as many processes with a thread each, which torchrun starts; rows one after the other. Times
are those of the stages; ``MB sent`` is what went over the loopback, or over the link between the hosts. ``same codes``
compares the tuned index with that of the first row. Writes ``results/processes.txt`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.scale import STAGES, corpus, lists_for
from faiss_distill import DistillConfig, DistillTrainer
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index
from faiss_distill.world import joined

HOSTS = ("faiss-distill-a", "faiss-distill-b")
"""Names of the network namespaces."""
ADDRESSES = ("10.213.7.1", "10.213.7.2")
PORT = "29501"


def prepare(folder: Path, n: int, d: int, data: Path | None, queries: bool) -> None:
    """An index, its vectors and, if they are wanted, queries, in files."""
    if queries:
        full = load_debian_packages(data)
        x = full.documents
        np.save(folder / "queries.npy", full.queries[full.train])
    else:
        x, _ = corpus(n, d, data)
    index: Any = faiss.index_factory(x.shape[1], f"OPQ16,IVF{lists_for(len(x))},PQ16np", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add(x)
    faiss.extract_index_ivf(index).nprobe = 16
    faiss.write_index(index, str(folder / "index.faiss"))
    np.save(folder / "embeddings.npy", x)


def tune(folder: Path) -> None:
    """In each process: tune together; the first one leaves what was found."""
    index = faiss.read_index(str(folder / "index.faiss"))
    queries = folder / "queries.npy"
    with joined("cpu") as group:
        trainer = DistillTrainer(
            index,
            folder / "embeddings.npy",
            queries if queries.exists() else None,
            group=group,
            config=DistillConfig(progress=False),
        )
        report = trainer.train()
        if trainer.world.main:
            state = open_index(index).extract()
            np.savez(folder / "tuned.npz", codes=state.codes, lists=state.assignment)
            (folder / "report.json").write_text(report.to_json())


def run(folder: Path, processes: int, threads: int) -> dict[str, Any]:
    """One row, of processes on this machine."""
    before = _sent("lo")
    _wait([subprocess.Popen(_command(folder, processes), env=_environment(threads))])
    return row(folder, f"{processes} x {threads}", _sent("lo") - before)


def run_on_hosts(folder: Path) -> dict[str, Any]:
    """One row, of a process with one thread in each of two network namespaces with a link between them."""
    with two_hosts():
        started = []
        for rank, host in enumerate(HOSTS):
            launch = [
                "--nnodes",
                "2",
                "--node-rank",
                str(rank),
                "--master-addr",
                ADDRESSES[0],
                "--master-port",
                "29501",
            ]
            env = _environment(1) | {"GLOO_SOCKET_IFNAME": f"link{rank}", "TP_SOCKET_IFNAME": f"link{rank}"}
            started.append(subprocess.Popen(["ip", "netns", "exec", host, *_command(folder, 1, launch)], env=env))
        _wait(started)
        sent = sum(_sent(f"link{rank}", host) for rank, host in enumerate(HOSTS))
    return row(folder, "2 hosts", sent)


def row(folder: Path, name: str, sent: int) -> dict[str, Any]:
    """What a run has left."""
    report = json.loads((folder / "report.json").read_text())
    with np.load(folder / "tuned.npz") as stored:
        codes, lists = stored["codes"], stored["lists"]
    first = folder / "first.npz"
    if not first.exists():
        (folder / "tuned.npz").rename(first)
    with np.load(first) as stored:
        same = float((stored["codes"] == codes).mean()), float((stored["lists"] == lists).mean())
    found = [next(p for p in report[when]["points"] if p["nprobe"] == 16) for when in ("before", "after")]
    return {
        "name": name, "seconds": report["seconds"], "same": same, "sent": sent, "kept": report["kept"],
        "overlap": [point["overlap_at_10"] for point in found],
    }  # fmt: skip


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two network namespaces, each with one end of a link."""
    try:
        for host in HOSTS:
            _ip("netns", "add", host)
        _ip("link", "add", "link0", "type", "veth", "peer", "name", "link1")
        for rank, (host, address) in enumerate(zip(HOSTS, ADDRESSES, strict=True)):
            _ip("link", "set", f"link{rank}", "netns", host)
            _ip("-n", host, "addr", "add", f"{address}/24", "dev", f"link{rank}")
            _ip("-n", host, "link", "set", f"link{rank}", "up")
            _ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False, stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _command(folder: Path, processes: int, launch: list[str] | None = None) -> list[str]:
    launch = ["--standalone"] if launch is None else launch
    run = [sys.executable, "-m", "torch.distributed.run", *launch, "--nproc-per-node", str(processes)]
    return [*run, "-m", "benchmarks.processes", "--tune", str(folder)]


def _environment(threads: int) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def _wait(started: list[subprocess.Popen[bytes]]) -> None:
    status = [process.wait() for process in started]
    if any(status):
        raise SystemExit(f"a process failed: {status}")


def _sent(interface: str, host: str | None = None) -> int:
    """Bytes that have left an interface of this machine, or of a network namespace."""
    inside = [] if host is None else ["ip", "netns", "exec", host]
    file = f"/sys/class/net/{interface}/statistics/tx_bytes"
    return int(subprocess.run([*inside, "cat", file], check=True, capture_output=True, text=True).stdout)


HEAD = (
    f"{'processes x threads':20}" + "".join(f" {stage:>8}" for stage in (*STAGES, "total")) + f" {'faster':>7}"
    f" {'MB sent':>8}  {'same codes':>10} {'lists':>6}   overlap@10"
)  # fmt: skip


def line(row: dict[str, Any], first: dict[str, Any]) -> str:
    """One row as text."""
    spent = "".join(f" {row['seconds'][stage]:8.1f}" for stage in (*STAGES, "total"))
    faster, (codes, lists) = first["seconds"]["total"] / row["seconds"]["total"], row["same"]
    before, after = row["overlap"]
    return (
        f"{row['name']:20}{spent} {faster:6.2f}x {row['sent'] / 1e6:8.0f}  {codes:10.4f} {lists:6.4f}"
        f"   {before:.4f} → {after:.4f}"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,000 vectors")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the full Debian set, or a .npy of others")
    parser.add_argument("--queries", action="store_true", help="all documents, and the training queries of the set")
    parser.add_argument("--size", type=int, default=50_000, help="vectors (default: 50,000)")
    parser.add_argument("--dimensions", type=int, default=128, help="of the vectors (default: 128)")
    parser.add_argument("--hosts", action="store_true", help="two network namespaces, too; needs root")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--tune", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tune:
        tune(args.tune)
        return
    cores, size = len(os.sched_getaffinity(0)), 4_000 if args.quick else args.size
    ways = [(1, 1), (1, cores)] + [(p, 1) for p in (2, 4, 8, 16, 32, 64) if p <= max(cores, 2)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, size, args.dimensions, args.data, args.queries)
        rows: list[dict[str, Any]] = []
        lines = [f"{cores} cores; {np.load(folder / 'embeddings.npy', mmap_mode='r').shape} vectors", HEAD]
        print(*lines, sep="\n", flush=True)
        for way in [*ways, *([None] if args.hosts else [])]:
            rows.append(run_on_hosts(folder) if way is None else run(folder, *way))
            lines.append(line(rows[-1], rows[0]))
            print(lines[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "processes.txt").write_text("\n".join(lines) + "\n")
    (args.output / "processes.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
