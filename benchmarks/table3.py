"""Table 3: similarity functions, sources of candidates, and the other parts of the method.

python -m benchmarks.table3 --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main
from faiss_distill.config import Assignment, Encoding
from faiss_distill.losses import LOSSES

CANDIDATES = (
    "in_batch + top100:10",
    "in_batch + top10",
    "in_batch + top200:1",
    "top100:10",
    "gt + in_batch",
    "gt + in_batch + top200:1",
    "in_batch + hard100:10",
    "in_batch + top100:5 + hard100:5",
    "in_batch + random10",
)
PARTS = {
    "codes alone, nothing trained": replace(OURS, epochs=0),
    "nearest codes": replace(OURS, encoding=Encoding.NEAREST),
    "frozen codes": replace(OURS, encoding=Encoding.FROZEN),
    "temperature 1": replace(OURS, temperature=1.0),
    "balanced losses": replace(OURS, balance=True),
    "fixed lists": replace(OURS, assignment=Assignment.FIXED),
    "refreshed lists": replace(OURS, assignment=Assignment.REFRESHED),
}
QUICK_LOSSES = ("listnet", "lambdarank")
QUICK_CANDIDATES = ("in_batch + top100:10", "top100:10", "gt + in_batch + top200:1", "in_batch + hard100:10")


def rows(e: Experiment) -> Sequence[Row]:
    """Each part with the untuned index as its baseline; ours is in both."""
    losses = QUICK_LOSSES if e.quick else [name for name, loss in LOSSES.items() if loss.compares == "teacher"]
    candidates = QUICK_CANDIDATES if e.quick else CANDIDATES
    parts = {
        "(a) similarity functions": {loss: replace(OURS, loss=loss) for loss in losses},
        "(b) candidates": {mixture: replace(OURS, candidates=mixture) for mixture in candidates},
        "(c) other parts": {"ours": OURS, **PARTS},
    }
    out: list[Row] = []
    for group, configs in parts.items():
        out.append(e.row("untuned", e.factory(), group=group, baseline=True))
        for name, config in configs.items():
            shown = f"{name} (ours)" if config == OURS and name != "ours" else name
            out.append(e.row(shown, e.factory(), config, group=group))
    out.append(e.row("linear query adapter", e.factory(), OURS, group=group, adapter=True))
    return out


def conclude(rows: Sequence[Row]) -> str:
    """What each part of (c) gains."""
    parts = [row for row in rows if row.group.startswith("(c)")]
    untuned = next(row.mean("overlap_at_10") for row in parts if row.baseline)
    lines = ["Gain in overlap@10 over the untuned index"]
    for row in parts:
        if not row.baseline:
            lines.append(f"  {row.name}: {row.mean('overlap_at_10') - untuned:+.3f}")
    return "\n".join(lines)


TITLE = "Similarity functions, sources of candidates and other parts, the rest as ours"
TABLE = Table("table3", TITLE, rows, conclude=conclude)

if __name__ == "__main__":
    main(TABLE)
