"""How the gain grows with the number of queries, down to none.

python -m benchmarks.queries --data DIR

With ``n`` queries that is all there are: those that choose the epoch are held out of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output
from benchmarks.suite.results import tested
from faiss_distill.tuning.split import n_held_out

COUNTS = {
    "full": (100, 500, 2_000, 10_000, 40_150),
    "sample": (100, 500, 2_800),
    "quick": (100, 200, 2_000),
    "words": (100, 500, 2_000, 4_500),
    "wordnet-mpnet": (100, 500, 2_000, 4_500),
}


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned, documents alone, and more and more queries; few of them with documents and without."""
    factory = e.factory()
    out = [e.row("untuned", factory, baseline=True), e.row("ours, documents alone", factory, OURS, n_queries=0)]
    for count in COUNTS[e.name]:
        name = f"ours, {count} queries"
        trained = count - n_held_out(count, OURS.validation_fraction)
        if 2 * trained < min(OURS.fill_to, len(e.data.documents)):
            alone = replace(OURS, fill_to=0)
            if count == COUNTS[e.name][1]:
                out.append(e.row(f"{count} queries, no documents (fill_to=0)", factory, alone, n_queries=count))
            name += " and documents"
        out.append(e.row(name, factory, OURS, n_queries=count, x=count))
    return out


def draw(figure: Figure, rows: Sequence[Row]) -> None:
    """Recall against queries."""
    metrics = tested(rows)
    figure.set_size_inches(5 * len(metrics), 4)
    for ax, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        curve = [replace(row, name="ours") for row in rows if row.x]
        output.lines(ax, curve, metric, "queries", lambda row: row.x or 0)
        for row, style in zip(rows[:2], ("--", ":"), strict=True):
            ax.axhline(row.mean(metric), ls=style, color="0.5", lw=1.2, label=row.name)
    figure.axes[0].legend(frameon=False, fontsize=8)


TABLE = Table("queries", "Number of queries", rows, draw)

if __name__ == "__main__":
    main(TABLE)
