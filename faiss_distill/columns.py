"""Arrays with a row for each vector of the corpus: in memory, or mapped from files where that is too little.

What is mapped takes no memory that the system can't have back: it writes pages to the disk and reads them again. The
files have no name, and are gone with the array, or with the process however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALL = 2**20
"""Bytes of an array that is never mapped."""
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def mapped_in(folder: Path | None) -> Iterator[None]:
    """Have columns that are made in the block mapped from files in ``folder``; None leaves all as it is."""
    token = _folder.set(folder or _folder.get())
    try:
        yield
    finally:
        _folder.reset(token)


def column(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A new array, of zeros.

    Raises:
        OSError: the disk has no room for it.
    """
    folder, size = _folder.get(), int(np.prod(shape)) * np.dtype(dtype).itemsize
    if folder is None or size < SMALL:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # else a page that the disk has no room for would end the process
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def copied(array: NDArray[Any]) -> NDArray[Any]:
    """A column of the same values."""
    new = column(array.shape, array.dtype)
    new[...] = array
    return new


def joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One after the other, along their first axis, as a column."""
    new = column((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    np.concatenate(arrays, out=new)
    return new


def taken(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of it that ``rows (n,)`` names, all of them there, as a column."""
    new = column((len(rows), *array.shape[1:]), array.dtype)
    np.take(array, rows, axis=0, out=new, mode="clip")  # any other mode would fill a copy first
    return new


def numbers(n: int) -> NDArray[np.int64]:
    """0 to ``n - 1``, as a column."""
    new = column((n,), np.int64)
    for start in range(0, n, SMALL):
        new[start : start + SMALL] = np.arange(start, min(start + SMALL, n))
    return new


def permuted(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """0 to ``n - 1`` in random order, as a column: what ``rng.permutation(n)`` gives."""
    new = numbers(n)
    rng.shuffle(new)
    return new


def ascending(values: NDArray[np.int64]) -> bool:
    """Whether each of ``values (n,)`` is above the one before it."""
    return bool((values[1:] > values[:-1]).all())
