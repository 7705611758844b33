"""Vectors from arrays, tensors and files, read in blocks. One file format a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from faiss_distill.errors import InputError
from faiss_distill.readers import fbin, fvecs, npy
from faiss_distill.readers.files import check_file
from faiss_distill.readers.vectors import Vectors

FORMATS = {".npy": npy.open_npy, ".fvecs": fvecs.open_fvecs, ".fbin": fbin.open_fbin}

__all__ = ["FORMATS", "Vectors", "check_file", "open_vectors"]


def open_vectors(source: Any, name: str) -> Vectors:
    """Make ``source`` readable in blocks of float32, without copying it.

    Args:
        source: a floating-point matrix ``(n, d)`` as a numpy array or memmap (any strides), a torch tensor, a
            nested sequence of floats, or a path to a file of one of the :data:`FORMATS`, which is memory-mapped.
            Other float dtypes are converted block by block; integers are refused, since they are far more often
            ids or quantized codes than embeddings.
        name: what to call it in errors.

    Raises:
        InputError: wrong dtype, dimensions or format; a file that does not exist or is truncated; a tensor without
            values.
    """
    if isinstance(source, str | Path):
        return Vectors(_open_file(Path(source), name), name)
    if isinstance(source, list | tuple) and any(isinstance(item, str | Path) for item in source):
        raise InputError(f"{name}: expected a matrix or the path of one file, got a {type(source).__name__} of paths")
    if scipy.sparse.issparse(source):
        raise InputError(f"{name}: expected a dense matrix of floats, got {type(source).__name__}; use its .toarray()")
    if isinstance(source, np.ma.MaskedArray):
        raise InputError(f"{name}: expected a matrix of floats, got a masked one; drop its masked rows, or fill them")
    if isinstance(source, torch.Tensor):
        _check_tensor(source, name)
    elif not (isinstance(getattr(source, "dtype", None), np.dtype) and hasattr(source, "shape")):
        source = _as_matrix(source, name)
    return Vectors(source, name)


def _open_file(path: Path, name: str) -> Any:
    """What is in a file of one of the formats."""
    if path.suffix not in FORMATS:
        raise InputError(f"{name}: expected a file ending in {', '.join(FORMATS)}, got {str(path)!r}")
    check_file(path, name)
    try:
        return FORMATS[path.suffix](path, name)
    except OSError as error:
        raise InputError(f"{name}: can't read {str(path)!r}: {error.strerror or error}") from error


def _check_tensor(tensor: torch.Tensor, name: str) -> None:
    """Refuse a tensor whose values are not all there, in rows."""
    kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
    if kind != "strided":
        raise InputError(f"{name}: expected a dense tensor, got a {kind} one; use its .to_dense(), or pad it")
    if tensor.is_meta:
        raise InputError(f"{name}: expected a tensor with values, got one on the meta device, which holds none")


def _as_matrix(source: Any, name: str) -> Any:
    """Nested sequences, and objects that numpy can read, as an array."""
    try:
        array = np.asarray(source)
    except Exception as error:  # whatever the object's own conversion raises
        raise InputError(f"{name}: expected a matrix of floats, got {type(source).__name__}: {error}") from error
    if array.dtype == object:
        raise InputError(f"{name}: expected a matrix of floats, got {type(source).__name__}")
    return array
