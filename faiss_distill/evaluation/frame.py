"""Operating points as a table of pandas'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from faiss_distill.data.formats.extras import imported
from faiss_distill.evaluation.point import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd


def as_frame(points: Iterable[tuple[OperatingPoint, dict[str, Any]]]) -> pd.DataFrame:
    """A row for each operating point: what is known besides, then its fields, without those that no point has.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    pandas = imported("pandas", "pandas", "to_pandas")
    rows = [beside | asdict(point) for point, beside in points]
    known = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    frame: pd.DataFrame = pandas.DataFrame(rows, columns=known)
    return frame
