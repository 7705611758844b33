"""A float matrix that is read in blocks and need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.columns import numbers
from faiss_distill.data.dataset_column import DatasetColumn, is_column
from faiss_distill.data.formats import is_file
from faiss_distill.data.formats.arrow import ArrowColumn
from faiss_distill.data.parts import open_parts, open_source
from faiss_distill.data.sliced import is_tensor, sliceable
from faiss_distill.errors import InputError
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, Int64

LONGEST = float(np.finfo(np.float32).max) / 4
"""The largest squared length of a vector: the squared distance between two of that length is finite in float32."""


class Vectors:
    """Rows of a matrix as float32, C-contiguous blocks, which are copies.

    Args:
        array: numpy array, memmap, torch tensor, or what else can be sliced, of a floating dtype or of integers of 8
            bits, ``(n, d)``.
        name: what to call it in errors.
        rows: if given, row ``i`` of this object is row ``rows[i]`` of ``array``; int64 ``(n,)``.
        unit: whether each row is divided by its length when it is read.

    Attributes:
        n: number of rows.
        d: number of columns.
    """

    def __init__(self, array: Any, name: str, rows: Int64 | None = None, unit: bool = False) -> None:
        """Check shape and dtype, touching no data."""
        if len(array.shape) != 2:
            raise InputError(name, "a matrix (n, d)", f"shape {tuple(array.shape)}")
        if not _holds_embeddings(array):
            raise InputError(
                name,
                "a floating dtype, or integers of 8 bits",
                str(array.dtype),
                "if these are embeddings, convert them, e.g. with .astype('float32')",
            )
        self._array, self._rows, self.name, self._unit = sliceable(array), rows, name, unit
        self.n: int = int(array.shape[0]) if rows is None else len(rows)
        self.d: int = int(array.shape[1])

    def select(self, rows: Int64) -> Vectors:
        """The same matrix seen through ``rows``."""
        return Vectors(self._array, self.name, rows if self._rows is None else self._rows[rows], self._unit)

    def normalized(self) -> Vectors:
        """The same rows, each divided by its length; one of zeros stays as it is."""
        return Vectors(self._array, self.name, self._rows, unit=True)

    @property
    def rows(self) -> Int64:
        """The row of the matrix that each row of this object is, int64 ``(n,)``."""
        return numbers(self.n) if self._rows is None else self._rows

    def block(self, start: int, stop: int) -> Float32:
        """Rows ``start..stop``: float32 ``(stop - start, d)``."""
        return self._read(slice(start, stop) if self._rows is None else self._rows[start:stop])

    def take(self, rows: Int64) -> Float32:
        """The given rows: float32 ``(len(rows), d)``."""
        return self._read(rows if self._rows is None else self._rows[rows])

    def blocks(self, size: int, part: slice = slice(None)) -> Iterator[tuple[int, Float32]]:
        """All rows, or a ``part``, ``size`` at a time, each with the number of its first."""
        first, last, _ = part.indices(self.n)
        for start in range(first, last, size):
            yield start, self.block(start, min(start + size, last))

    def check_finite(
        self, size: int, progress: bool = False, part: slice = slice(None), distances: bool = True
    ) -> None:
        """Read everything, or a ``part``, once.

        Args:
            size: rows read at a time.
            progress: whether to show a bar.
            part: of the rows.
            distances: whether squared distances of rows have to be finite, too.

        Raises:
            InputError: a row has NaN or infinite values, or is too long for squared distances in float32.
        """
        bad: list[int] = []
        with progress_bar(len(range(self.n)[part]), f"check {self.name}", "rows", progress) as bar:
            for start, block in self.blocks(size, part):
                within = np.einsum("ij,ij->i", block, block) <= LONGEST if distances else np.isfinite(block).all(axis=1)
                bad += (np.flatnonzero(~within) + start).tolist()
                bar.update(len(block))
        if bad:
            bad = bad if self._rows is None else np.sort(self._rows[bad]).tolist()
            shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
            raise InputError(
                self.name,
                "finite values" + (", and squared distances that are finite in float32" if distances else ""),
                f"NaN, infinity or too large a value in {len(bad)} of {self.n} rows ({shown})",
                "repair or drop these rows",
            )

    def _read(self, rows: slice | Int64) -> Float32:
        if is_tensor(self._array):
            import torch

            index = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._array.device)
            part = self._array.detach()[index].to(torch.float32).numpy(force=True)
        else:
            part = self._array[rows]
        with np.errstate(over="ignore"):  # infinities are for check_finite to report
            out = np.array(part, dtype=np.float32, order="C")
            if self._unit:
                length = np.linalg.norm(out, axis=1, keepdims=True)
                np.divide(out, length, out=out, where=(length > 0) & np.isfinite(length))
        return out


def _holds_embeddings(array: Any) -> bool:
    """Whether a dtype is one of those that embeddings come in: wider integers are far more often ids."""
    dtype = array.dtype
    if not isinstance(dtype, np.dtype):  # one of torch's
        return dtype.is_floating_point or str(dtype) in ("torch.int8", "torch.uint8")
    return bool(dtype.kind == "f" or (dtype.kind in "iu" and dtype.itemsize == 1))


def open_vectors(source: Any, name: str) -> Vectors:
    """Make ``source`` readable in blocks of float32, without copying it.

    Args:
        source: :class:`Vectors` already, or a matrix ``(n, d)`` as a numpy array or memmap (any strides), a torch
            tensor, a nested sequence of floats, a dataset of h5py's, an array of zarr's or pyarrow's, a column of a
            dataset of Hugging Face's, or the path of a file of one of the
            :data:`~faiss_distill.data.formats.FORMATS`; or parts of one corpus, see :mod:`faiss_distill.data.parts`.
            Other float dtypes and integers of 8 bits are converted block by block; wider integers are refused, since
            they are far more often ids than embeddings.
        name: what to call it in errors.

    Raises:
        InputError: wrong dtype, dimensions or format; a file that does not exist or is truncated; a tensor without
            values.
    """
    if isinstance(source, Vectors):
        return source
    if isinstance(source, str | Path):
        return Vectors(open_source(source, name), name)
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        if not any(is_file(Path(item)) for item in source):
            hint = "embed them first, as the documents were" if isinstance(source[0], str) else ""
            raise InputError(name, "vectors, or paths of files that hold some", f"texts, {source[0]!r} first", hint)
        return Vectors(open_parts(source, name), name)
    if is_column(source):
        source = DatasetColumn(source.source, source.column_name, name)
    if type(source).__module__.partition(".")[0] == "pyarrow":
        source = ArrowColumn.of(source, name)
    if type(source).__module__.startswith("scipy.sparse"):
        raise InputError(name, "a dense matrix of floats", type(source).__name__, "use its .toarray()")
    if isinstance(source, np.ma.MaskedArray):
        raise InputError(name, "a matrix of floats", "a masked one", "drop its masked rows, or fill them")
    if is_tensor(source):
        _check_tensor(source, name)
    elif not (hasattr(source, "shape") and _is_dtype(getattr(source, "dtype", None))):
        source = _as_matrix(source, name)
    return Vectors(source, name)


def _is_dtype(kind: Any) -> bool:
    """Whether it is a dtype of numpy's, or of torch's, without importing that."""
    return isinstance(kind, np.dtype) or str(kind).startswith("torch.")


def _check_tensor(tensor: Any, name: str) -> None:
    """Refuse a tensor whose values are not all there, in rows."""
    kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    if kind != "strided":
        raise InputError(name, "a dense tensor", f"a {kind} one", "use its .to_dense(), or pad it")
    if tensor.is_meta:
        raise InputError(name, "a tensor with values", "one on the meta device, which holds none")


def _as_matrix(source: Any, name: str) -> Any:
    """Nested sequences, and objects that numpy can read, as an array."""
    try:
        array = np.asarray(source)
    except Exception as error:  # whatever the object's own conversion raises
        raise InputError(name, "a matrix of floats", f"{type(source).__name__}: {error}") from error
    if array.dtype == object:
        raise InputError(name, "a matrix of floats", type(source).__name__)
    return array
