"""``.parquet``: a column of vectors, streamed with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.formats.extras import imported
from faiss_distill.data.formats.table import dimension, dtype_of, matrix, vector_column

BATCH = 4096
"""Rows that are decoded at a time."""


class ParquetColumn:
    """A matrix whose rows are decoded as they are sliced: forwards without doing anything twice.

    Attributes:
        shape: ``(n, d)``, or ``(n,)`` of numbers.
        dtype: numpy's.
    """

    def __init__(self, file: Any, column: str, name: str) -> None:
        """Read the first row."""
        self._file, self._column, self._name = file, column, name
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._held: NDArray[Any] = np.empty((0, 0))
        self._restart(0)
        first = next(self._batches, None)
        self.shape = (int(sum(sizes)), *dimension([] if first is None else first, name))
        self.dtype = dtype_of(file.schema_arrow.field(column).type)
        self._restart(0)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        done = start
        while done < stop:
            if not self._first <= done < self._first + len(self._held):
                self._go_to(done)
            part = self._held[done - self._first : stop - self._first]
            out[done - start : done - start + len(part)] = part
            done += len(part)
        return out

    def _go_to(self, row: int) -> None:
        """Have the batch that holds a row, the next one as a rule."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        if row < self._first or group > self._group_at(self._first + len(self._held)):
            self._restart(group)
        while row >= self._first + len(self._held):
            self._first += len(self._held)
            self._held = matrix(next(self._batches), self.shape[1:], self._name)

    def _group_at(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))

    def _restart(self, group: int) -> None:
        """Begin with a row group."""
        groups = range(group, self._file.num_row_groups)
        self._first = int(self._ends[group - 1]) if group else 0
        self._held = np.empty((0, 0))
        self._batches: Iterator[Any] = (
            batch.column(0) for batch in self._file.iter_batches(BATCH, list(groups), [self._column])
        )


def open_parquet(path: Path, key: str | None, name: str) -> ParquetColumn:
    """The column ``key``, or the only one of vectors, of ``path``.

    Raises:
        InputError: there is no such column.
        MissingDependencyError: pyarrow is not installed.
    """
    file = imported("pyarrow.parquet", "arrow", name).ParquetFile(path, memory_map=True)
    return ParquetColumn(file, vector_column(file.schema_arrow, key, path, name), name)
