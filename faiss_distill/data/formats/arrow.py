"""``.arrow``, ``.feather``: a column of vectors in Arrow's file or stream format, mapped with pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.formats.extras import imported
from faiss_distill.data.formats.table import dimension, dtype_of, matrix, of_numbers, vector_column
from faiss_distill.errors import InputError


class ArrowColumn:
    """A matrix whose rows are in an array of pyarrow's, as a rule in a mapped file.

    Args:
        array: a ``ChunkedArray`` of lists of numbers.
        name: what to call it in errors.

    Attributes:
        shape: ``(n, d)``, or ``(n,)`` of numbers.
        dtype: numpy's.
    """

    def __init__(self, array: Any, name: str) -> None:
        """Look at the first row."""
        self._array, self._name = array, name
        self.shape = (len(array), *dimension(array[:1], name))
        self.dtype = dtype_of(array.type)

    @classmethod
    def of(cls, array: Any, name: str) -> ArrowColumn:
        """The same of an ``Array`` or a ``ChunkedArray`` that somebody has.

        Raises:
            InputError: its entries are no lists of numbers.
        """
        import pyarrow as pa

        array = pa.chunked_array([array]) if isinstance(array, pa.Array) else array
        if not (isinstance(array, pa.ChunkedArray) and of_numbers(array.type)):
            got = type(array).__name__ if not hasattr(array, "type") else str(array.type)
            raise InputError(name, "an array of lists of numbers", got)
        return cls(array, name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return matrix(self._array.slice(start, stop - start), self.shape[1:], self._name)


def open_arrow(path: Path, key: str | None, name: str) -> ArrowColumn:
    """The column ``key``, or the only one of vectors, of ``path``; compressed ones are decompressed in memory.

    Raises:
        InputError: there is no such column.
        MissingDependencyError: pyarrow is not installed.
    """
    pa = imported("pyarrow", "arrow", name)
    ipc = imported("pyarrow.ipc", "arrow", name)
    mapped = pa.memory_map(str(path))
    try:
        file = ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        file = ipc.open_stream(mapped)
    column = vector_column(file.schema, key, path, name)
    return ArrowColumn(file.read_all().column(column), name)
