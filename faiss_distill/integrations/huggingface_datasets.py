"""Hugging Face datasets: a ``Dataset`` with a faiss index on a column."""

from __future__ import annotations

from typing import Any

from faiss_distill.data.dataset_column import DatasetColumn
from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source


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
        got, hint = f"several, {', '.join(map(repr, held))}", "name its column with column="
        if not held:
            got = "none"
            hint = "add one with add_faiss_index; a dataset loses its index when it is changed, and on load_from_disk"
        raise InputError("index", "a dataset with one faiss index", got, hint)
    name = chosen[0]
    column = column or str(name)
    kept = column in store.column_names
    return Source(
        "Hugging Face datasets",
        f"dataset.get_index({name!r}).faiss_index",
        held[name],
        embeddings=DatasetColumn(store, column, "embeddings") if kept else None,
        lacks=f"name the column that has the vectors of the index {name!r} with column=",
    )
