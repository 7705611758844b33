"""What a result is shown as: plain data, which tables, pictures and pages are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | float | tuple[float, ...]
Role = Literal["before", "after", "all", "front"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading; empty in a table without headings.
        format: of its numbers, as ``format`` takes it.
        left: whether its cells stand to the left, as names do.
    """

    name: str = ""
    format: str = ""
    left: bool = False


FACTS = (Column(left=True), Column(left=True))
"""Of a table of names and what they are, without headings."""


@dataclass(frozen=True)
class Section:
    """A part of what a reader is shown. Each of its own parts may be missing.

    Attributes:
        title: above it.
        columns: of its table.
        rows: of its table, a cell for each column; a tuple is a value before and after, shown with an arrow.
        notes: sentences below the table.
        items: a list below them.
    """

    title: str = ""
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Cell]] = ()
    notes: Sequence[str] = ()
    items: Sequence[str] = ()


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        role: what they are, which says how they are drawn.
        x: where they are.
        y: where they are.
        name: for the legend, if any.
        labels: a text for each point, or none.
        joined: whether a line leads from each to the next.
    """

    role: Role
    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    labels: Sequence[str] = ()
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """Two axes, and what is drawn between them.

    Attributes:
        x: what is on the horizontal axis, which is logarithmic.
        y: what is on the vertical one.
        series: drawn in this order.
    """

    x: str
    y: str
    series: Sequence[Series]


@dataclass(frozen=True)
class Picture:
    """Panels side by side.

    Attributes:
        panels: from the left.
        title: above all.
        caption: in place of a title, a sentence that says what there is to see.
    """

    panels: Sequence[Panel]
    title: str = ""
    caption: str = ""
