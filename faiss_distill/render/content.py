"""What a result is shown as: plain data, which tables, pictures and pages are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | float | tuple[float, ...]
Role = Literal["before", "after", "all", "front", "won", "lost"]


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
        within: an interval around each ``y``, its lower and its upper end, or none.
        drawn: as points and lines, as lines alone, or as bars from 0.
    """

    role: Role
    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    labels: Sequence[str] = ()
    joined: bool = True
    within: Sequence[tuple[float, float]] = ()
    drawn: Literal["points", "line", "bars"] = "points"


@dataclass(frozen=True)
class Panel:
    """Two axes, and what is drawn between them.

    Attributes:
        x: what is on the horizontal axis.
        y: what is on the vertical one.
        series: drawn in this order.
        log: whether the horizontal axis is logarithmic.
    """

    x: str
    y: str
    series: Sequence[Series]
    log: bool = True


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


@dataclass(frozen=True)
class Page:
    """A result as a page to read.

    Attributes:
        title: of the document.
        verdict: its heading, in a sentence.
        parts: sections and pictures, in order.
        good: whether the verdict is a good one; None if there is none to be given.
    """

    title: str
    verdict: str
    parts: Sequence[Section | Picture]
    good: bool | None = None
