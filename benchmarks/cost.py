"""What tuning would cost: a model of each stage, with rates measured by ``benchmarks.scale``.

    python -m benchmarks.cost scale.json [scale.json ...]

The counts are those of the algorithm: multiplications, documents encoded, bytes read and sent. The rates come from the
largest run of each dimension among the files; all other runs are predicted from them, beside what they took. Then hours
for 1M, 100M and 1B vectors: on the machine of the rates, on 64 cores as if they were 32 of it, and on 8 GPUs as if they
were 8 of the one given with ``--gpu scale.json``. No run of 100M vectors or more has been made: these are estimates.
Writes ``results/cost.txt``.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale import lists_for

QUERIES, EPOCHS, BATCH, CANDIDATES, TOP = 36_000, 3, 256, 2560, 100
DRAWN, SAMPLED, SELECTION = 10, 16_384, 50_000
"""Documents drawn for a query, placed to know the price of lists, and looked at by the queries that choose."""
STAGES = ("teacher", "training", "lists", "codes")
KEEPING = 1000
"""Multiplications that keeping the best costs for each document that a teacher scores."""
LARGE = (10**6, 10**8, 10**9)
PROCESSES = {"2 cores": 1, "64 cores": 32, "8 GPUs": 8}


@dataclass(frozen=True)
class Work:
    """What the stages of one tuning do.

    Attributes:
        teacher: multiplications to find neighbours, in all documents or in lists, whichever is cheaper.
        training: multiplications of the steps.
        lists: multiplications to choose lists.
        codes: documents encoded.
        read: bytes of embeddings read, float32.
        sent: bytes that each process sends, of ``p`` processes.
    """

    teacher: float
    training: float
    lists: float
    codes: float
    read: float
    sent: float


def work(n: int, d: int, processes: int, probed: float) -> Work:
    """Count.

    Args:
        n: vectors, of which 40,000 at most are used as queries.
        d: dimensions.
        processes: that share the work.
        probed: lists that a teacher looks into for a query; infinite if it always looks everywhere.
    """
    nq, nlist = min(QUERIES, int(0.9 * n)), lists_for(n)
    looked_at = n * -math.expm1(-(nq * DRAWN + SAMPLED + SELECTION) / n)
    listed = nq * (nlist * d + min(probed, nlist) * n / nlist * (d + KEEPING))
    steps = EPOCHS * nq // BATCH
    placed = (EPOCHS + 1) * (looked_at + SAMPLED) + n
    encoded = (EPOCHS + 1) * looked_at + max(0.0, n - looked_at)
    learned = (nlist + 256) * d
    return Work(
        teacher=min(n * nq * d, listed),
        training=steps * BATCH * (4 * CANDIDATES + 3 * nlist) * d,
        lists=placed * nlist * d + (EPOCHS + 1) * nq * nlist * d,
        codes=encoded,
        read=4.0 * d * (n / processes * 4 + (EPOCHS + 1) * looked_at / processes + steps * CANDIDATES),
        sent=0.0 if processes == 1 else 2 * 4 * learned * steps + 12.0 * nq * TOP + encoded * 24,
    )


def rates(run: dict[str, Any]) -> dict[str, float]:
    """Units of each stage a second, in one measured run."""
    done = work(run["n"], run["d"], 1, run["teacher_lists"] or math.inf)
    return {stage: getattr(done, stage) / run["seconds"][stage] for stage in STAGES}


def seconds(n: int, d: int, rate: dict[str, float], machines: int, probed: float) -> dict[str, float]:
    """By stage, on as many machines of these rates."""
    done = work(n, d, machines, probed)
    return {stage: getattr(done, stage) / rate[stage] / machines for stage in STAGES}


def table(runs: list[dict[str, Any]], gpu: list[dict[str, Any]]) -> list[str]:
    """The lines."""
    lines, known = ["checked: seconds predicted from the largest run of each dimension, and measured"], {}
    for d in sorted({run["d"] for run in runs}):
        mine = sorted((run for run in runs if run["d"] == d), key=lambda run: int(run["n"]))
        known[d] = rates(mine[-1]), mine[-1]["teacher_lists"] or math.inf
        for run in mine[:-1]:
            expected = seconds(run["n"], d, known[d][0], 1, run["teacher_lists"] or math.inf)
            both = ", ".join(f"{s} {expected[s]:.0f} ({run['seconds'][s]:.0f})" for s in STAGES)
            lines.append(f"{run['n']:10} x {d}: {both}, total {sum(expected.values()):.0f}")
        of = ", ".join(f"{stage} {value:.3g}/s" for stage, value in known[d][0].items())
        lines.append(f"rates at {mine[-1]['n']} x {d}: {of}")
    fast = {run["d"]: rates(run) for run in sorted(gpu, key=lambda run: int(run["n"]))}
    head = f"{'vectors':>11} {'d':>5} {'':10}" + "".join(f"{stage:>10}" for stage in (*STAGES, "total")) + "  hours"
    lines += ["", head + f"{'read':>12} {'sent':>10}"]
    for n in LARGE:
        for d, (rate, probed) in known.items():
            for name, machines in PROCESSES.items():
                used = fast.get(d) if name == "8 GPUs" else rate
                if used is None:
                    continue
                spent = seconds(n, d, used, machines, probed)
                hours = "".join(f"{value / 3600:10.2f}" for value in (*spent.values(), sum(spent.values())))
                done = work(n, d, machines, probed)
                lines.append(f"{n:11} {d:5} {name:10}{hours}       {done.read / 1e9:9.0f} GB {done.sent / 1e9:7.1f} GB")
    return lines


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="scale.json of the machine")
    parser.add_argument("--gpu", type=Path, nargs="*", default=[], help="scale.json of one with a GPU")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    args = parser.parse_args()

    def read(paths: list[Path]) -> list[dict[str, Any]]:
        return [row for path in paths for row in json.loads(path.read_text())]

    lines = table(read(args.runs), read(args.gpu))
    print(*lines, sep="\n")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "cost.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
