"""Hugging Face datasets: a ``Dataset`` with a faiss index on a column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source


class EmbeddingColumn:
    """A column of vectors, read from Arrow's files as it is asked for.

    Attributes:
        shape: ``(n, d)``.
        dtype: numpy's.
        takes_rows: it can be indexed with rows in any order.
    """

    takes_rows = True

    def __init__(self, dataset: Any, column: str) -> None:
        """Look at the first row."""
        self._rows, self._column = dataset.with_format("numpy", columns=[column]), column
        first = self._rows[:1][column]
        self.shape, self.dtype = (len(dataset), *np.shape(first)[1:]), first.dtype

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        found: NDArray[Any] = self._rows[rows][self._column]
        if found.dtype == object:
            raise InputError("embeddings", f"vectors of {self.shape[1]} numbers", "some of another length", "drop them")
        return found


def source(store: Any, column: str | None = None) -> Source:
    """The index on a column, or the only one, and the column.

    Raises:
        InputError: there is no such index, or there are several and no column.
    """
    held = {name: store.get_index(name) for name in store.list_indexes()}
    held = {name: index.faiss_index for name, index in held.items() if hasattr(index, "faiss_index")}
    if column is not None and column not in (*held, *store.column_names):
        raise InputError("column", f"one of {store.column_names}", repr(column))
    chosen = [column] if column in held else list(held)
    if len(chosen) != 1:
        got = f"several, {', '.join(map(repr, held))}" if held else "none"
        hint = "name its column with column=" if held else "add one with add_faiss_index; a dataset loses its index "
        hint += "" if held else "when it is changed, by add_item or map, say, and load_from_disk brings none back"
        raise InputError("index", "a dataset with one faiss index", got, hint)
    name = chosen[0]
    column = column or str(name)
    kept = column in store.column_names
    return Source(
        "Hugging Face datasets",
        f"dataset.get_index({name!r}).faiss_index",
        held[name],
        embeddings=EmbeddingColumn(store, column) if kept else None,
        lacks=f"name the column that has the vectors of the index {name!r} with column=",
    )
