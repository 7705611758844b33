"""Ids as faiss stores them: int64, of which unsigned ones are taken bit for bit.

A 64-bit hash as an id is unsigned to its owner. faiss keeps the same bits as a signed number, from 2**63 on a negative
one, so every id that is passed becomes that before it is compared: int64 with uint64 would meet as floating-point
numbers, in which neighbours above 2**53 are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data.formats import is_file
from faiss_distill.data.parts import open_parts, open_source
from faiss_distill.errors import InputError
from faiss_distill.state import Int64

NOTHING = -1
"""What faiss returns where it found nothing, so that no vector can have it; in labels, padding."""
UNSIGNED = NOTHING % 2**64
"""The same bits, which nobody means as padding."""


def as_ids(values: Any, name: str) -> Int64:
    """Ids of the shape that ``values`` have, int64.

    Args:
        values: integers of any dtype, as an array, a tensor, a list of Python's or numpy's, or the path of a file in
            one of the :data:`~faiss_distill.data.formats.FORMATS`, or of a folder or a list of such files.
        name: what to call them in errors.

    Raises:
        InputError: something else, rows of unequal length, an integer of more than 64 bits, or 2**64 - 1.

    Examples:
        >>> as_ids(np.array([7, 2**64 - 7], dtype=np.uint64), "ids").tolist()
        [7, -7]
    """
    if isinstance(values, str | Path) or _are_files(values):
        path, values = values, read_integers(values, name)
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if values.dtype.kind == "f" and isinstance(path, str | Path):
            got, hint = f"{values.dtype} of shape {values.shape}", "name the column or array of ids: PATH:doc_id, say"
            raise InputError(name, "integers", got, hint)
    array = _of_lists(values, name) if isinstance(values, list | tuple) else as_array(values, name)
    if array.dtype == object and array.size:
        return from_integers(array.ravel().tolist(), name).reshape(array.shape)
    if array.dtype.kind not in "iu":
        raise InputError(name, "integers", f"{array.dtype} of shape {array.shape}")
    if array.dtype.kind == "u" and (array == UNSIGNED).any():
        raise _meant_nothing(name)
    ids: Int64 = array.astype(np.int64, order="C", copy=False)  # which wraps around
    return ids


def read_integers(path: str | Path | Sequence[str | Path], name: str) -> Any:
    """The array in a file of one of the :data:`~faiss_distill.data.formats.FORMATS`, or in several parts of one.

    Raises:
        InputError: see :func:`~faiss_distill.data.parts.open_source`.
        MissingDependencyError: the library that reads the format is not installed.
    """
    opened = open_source(path, name) if isinstance(path, str | Path) else open_parts(path, name)
    return as_array(opened[:], name)


def _are_files(values: Any) -> bool:
    """Whether it is a list of paths."""
    listed = isinstance(values, list | tuple) and len(values) > 0
    return listed and all(isinstance(item, str | Path) and is_file(Path(item)) for item in values)


def from_integers(values: Sequence[Any], name: str) -> Int64:
    """Python's or numpy's integers, from -2**63 to 2**64 - 1, as int64 ``(n,)``.

    Raises:
        InputError: some are no integers, out of that range, or 2**64 - 1.
    """
    wrong = {kind.__name__ for kind in set(map(type, values)) if not is_integer(kind)}
    if wrong:
        raise InputError(name, "integers", f"some of type {', '.join(sorted(wrong))}")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        too_long = [value for value in values if not -(2**63) <= value < 2**64]
    if UNSIGNED in values:
        raise _meant_nothing(name)
    if too_long:
        raise InputError(name, "integers of 64 bits", examples(too_long))
    return np.array([int(value) % 2**64 for value in values], dtype=np.uint64).astype(np.int64)


def as_array(values: Any, name: str) -> Any:
    """An array or tensor as a numpy array.

    Raises:
        InputError: its values can't be had: of a sparse tensor, or masked.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(name, "an array of integers", "a masked one", "use its .filled() or .compressed()")
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except (TypeError, ValueError, RuntimeError) as error:  # a sparse tensor, bfloat16
        raise InputError(name, "an array of integers", f"{type(values).__name__}: {error}") from error


def is_integer(kind: type) -> bool:
    """Whether values of this type are integers, which Python also takes ``bool`` for."""
    return issubclass(kind, int | np.integer) and kind is not bool


def examples(values: Any) -> str:
    """The first few of a sequence, for an error."""
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _meant_nothing(name: str) -> InputError:
    return InputError(
        name,
        f"ids below {UNSIGNED}",
        "that, which faiss, as -1, returns where it found nothing",
        "such a vector needs another id, and -1 is for padding",
    )


def _of_lists(values: Any, name: str) -> Any:
    """Nested lists as an array of objects."""
    try:
        array = np.asarray(values)  # which refuses rows of unequal length
    except (ValueError, OverflowError) as error:
        raise InputError(name, "an array of integers", "rows of unequal length") from error
    return np.array(values, dtype=object).reshape(array.shape) if array.size else np.zeros(array.shape, dtype=np.int64)
