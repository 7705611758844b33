"""The command line that all tables share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.suite import output
from benchmarks.suite.cache import Cache
from benchmarks.suite.experiment import Experiment
from benchmarks.suite.results import Row, compare

COLUMNS = tuple(output.COLUMNS)


@dataclass(frozen=True)
class Table:
    """What tells one table from another.

    Attributes:
        name: of its files.
        title: its heading.
        rows: makes them.
        draw: its plot.
        columns: of the text; the JSON has all.
        conclude: what follows from the rows, in words.
    """

    name: str
    title: str
    rows: Callable[[Experiment], Sequence[Row]]
    draw: Callable[[Figure, Sequence[Row]], None] = output.dots
    columns: tuple[str, ...] = COLUMNS
    conclude: Callable[[Sequence[Row]], str] | None = None


def main(table: Table, arguments: Sequence[str] | None = None) -> None:
    """Run, print, and write ``<name>.json``, ``.txt`` and ``.png``."""
    parser = argparse.ArgumentParser(description=table.title)
    parser.add_argument("--data", type=Path, help="folder of the full set (default: the packaged sample)")
    parser.add_argument("--quick", action="store_true", help="a part of the sample, one epoch: does everything run?")
    parser.add_argument("--seeds", type=int, default=3, help="tunings of each method (default: 3)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: results, or results/quick)")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of what was made (default: .cache)")
    args = parser.parse_args(arguments)
    if args.quick and args.data:
        parser.error("--quick cuts the packaged sample: leave --data out")
    if args.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {args.seeds}")
    folder = args.output or Path("results", "quick" if args.quick else "")
    start = time.perf_counter()
    experiment = Experiment(args.data, args.quick, args.seeds, Cache(args.cache))
    print(f"{table.name}: {table.title}", flush=True)
    rows = table.rows(experiment)
    compared = compare(rows)
    written = output.text(table.title, rows, compared, table.columns, experiment)
    if table.conclude is not None:
        written += f"\n{table.conclude(rows)}\n"
    content = output.to_dict(table.title, rows, compared, experiment)
    output.write(folder, table.name, written, content, lambda figure: table.draw(figure, rows))
    print(f"\n{written}\nwrote {folder / table.name}.txt, .json and .png in {time.perf_counter() - start:.0f} s")
