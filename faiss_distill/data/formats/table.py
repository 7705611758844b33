"""Columns of Arrow tables whose entries are vectors, as matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


def vector_column(schema: Any, key: str | None, path: Path, name: str) -> str:
    """The column ``key`` of a table, or the only one whose entries are lists of numbers.

    Raises:
        InputError: there is no such column, or its entries are something else.
    """
    held = schema.names if key is not None else [field.name for field in schema if of_numbers(field.type)]
    column = chosen(key, held, path, name, "column of vectors" if key is None else "column")
    kind = schema.field(column).type
    if not (of_numbers(kind) or are_numbers(kind)):
        raise InputError(name, "a column of numbers or of lists of them", f"{column!r} of {kind}")
    return column


def matrix(array: Any, d: tuple[int, ...], name: str) -> NDArray[Any]:
    """Entries of such a column, ``(n, d)``, or ``(n,)`` if they are numbers.

    Args:
        array: an ``Array`` or a ``ChunkedArray`` of pyarrow's.
        d: the length that each entry must have, or none.
        name: what to call it in errors.

    Raises:
        InputError: an entry is of another length, or missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    values = array
    if d:
        lengths = pc.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False)
        wrong = lengths[lengths != d[0]]
        if len(wrong):
            got = "nothing" if wrong[0] < 0 else str(wrong[0])
            raise InputError(name, f"vectors of {d[0]} numbers, as the first is", f"{got} in one", "drop such rows")
        values = array.flatten()
    if values.null_count:
        raise InputError(name, "numbers", f"none in {values.null_count} places", "drop such rows")
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(array), *d)
    return found


def dimension(first: Any, name: str) -> tuple[int, ...]:
    """The length of the entries of such a column, of which ``first`` has the first; none if they are numbers.

    Raises:
        InputError: there is none.
    """
    if len(first) and are_numbers(first.type):
        return ()
    if len(first) == 0 or not first[0].is_valid:
        raise InputError(name, "vectors", "none" if len(first) == 0 else "none in row 0")
    return (len(first[0]),)


def dtype_of(kind: Any) -> np.dtype[Any]:
    """numpy's name for the numbers in the lists of a column."""
    import pyarrow as pa

    found: np.dtype[Any] = pa.array([], kind if are_numbers(kind) else kind.value_type).to_numpy().dtype
    return found


def of_numbers(kind: Any) -> bool:
    """Whether entries of a type of pyarrow's are lists of numbers."""
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists) and are_numbers(kind.value_type)


def are_numbers(kind: Any) -> bool:
    """Whether entries of a type of pyarrow's are numbers."""
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
