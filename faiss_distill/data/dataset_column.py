"""A column of vectors of a dataset of Hugging Face's, read from Arrow's files as it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.errors import InputError


class DatasetColumn:
    """A matrix whose rows are the entries of a column.

    Args:
        dataset: a ``datasets.Dataset``, in any format, with rows selected or shuffled or not.
        column: its name.
        name: what to call it in errors.

    Attributes:
        shape: ``(n, d)``.
        dtype: numpy's.
        takes_rows: it can be indexed with rows in any order.
    """

    takes_rows = True

    def __init__(self, dataset: Any, column: str, name: str) -> None:
        """Look at the first row."""
        self._rows, self._column, self._name = dataset.with_format("numpy", columns=[column]), column, name
        first = np.asarray(self._rows[:1][column])
        self.shape, self.dtype = (len(dataset), *first.shape[1:]), first.dtype

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        found: NDArray[Any] = np.asarray(self._rows[rows][self._column])
        if found.dtype == object:
            expected = f"vectors of {self.shape[1]} numbers"
            raise InputError(self._name, expected, f"others in {self._column!r}", "drop such rows")
        return found


def is_column(source: Any) -> bool:
    """Whether it is what ``dataset["column"]`` returns, of a dataset that is not a column itself."""
    kind = type(source)
    known = (kind.__module__.partition(".")[0], kind.__name__) == ("datasets", "Column")
    return known and hasattr(source.source, "with_format")
