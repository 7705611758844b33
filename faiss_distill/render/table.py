"""Sections as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from faiss_distill.render.content import Cell, Column, Section

WIDTH = 88
"""Of the items of a list."""
TABLE_WIDTH = 100
"""Of a table, beyond which its last columns go below it, beside its first one again."""


def as_text(sections: Iterable[Section]) -> str:
    """Sections as text, with an empty line between them.

    Examples:
        >>> cities = Section(columns=[Column("city", left=True), Column("km")], rows=[("Bonn", 30), ("Aachen", 7)])
        >>> print(as_text([cities, Section(notes=["* as the crow flies"])]))
        city    km
        Bonn    30
        Aachen   7
        <BLANKLINE>
        * as the crow flies
    """
    return "\n\n".join("\n".join(_lines(section)) for section in sections)


def _lines(section: Section) -> list[str]:
    title = [section.title] if section.title else []
    items = [textwrap.fill(f"- {item}", WIDTH, subsequent_indent="  ") for item in section.items]
    return [*title, *_table(section), *section.notes, *items]


def _table(section: Section) -> list[str]:
    """Each column as wide as its widest cell; one to the left at the end as wide as each of its cells."""
    names = [column.name for column in section.columns]
    rows = [
        [cell_text(cell, column) for cell, column in zip(row, section.columns, strict=True)] for row in section.rows
    ]
    rows = [names, *rows] if any(names) else rows
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    if widths and section.columns[-1].left:
        widths[-1] = 0
    lines: list[str] = []
    for part in _parts(widths):
        lines += [""] if lines else []
        lines += ["  ".join(_aligned(row[i], widths[i], section.columns[i]) for i in part) for row in rows]
    return lines


def _parts(widths: Sequence[int]) -> list[list[int]]:
    """The columns of each part of a table: its first, and as many others as :data:`TABLE_WIDTH` has room for."""
    parts: list[list[int]] = [[]]
    for column, width in enumerate(widths):
        taken = sum(widths[i] + 2 for i in parts[-1])
        if len(parts[-1]) > 1 and taken + width > TABLE_WIDTH:
            parts.append([0])
        parts[-1].append(column)
    return parts


def cell_text(cell: Cell, column: Column) -> str:
    """A cell as text."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    numbers = cell if isinstance(cell, tuple) else (cell,)
    return " → ".join(format(number, column.format) for number in numbers)


def _aligned(cell: str, width: int, column: Column) -> str:
    return cell.ljust(width) if column.left else cell.rjust(width)
