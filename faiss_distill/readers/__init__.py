"""Vectors from arrays, tensors and files, read in blocks. One file format a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from faiss_distill.errors import InputError
from faiss_distill.readers import fbin, fvecs, npy
from faiss_distill.readers.vectors import Vectors

FORMATS = {".npy": npy.open_npy, ".fvecs": fvecs.open_fvecs, ".fbin": fbin.open_fbin}

__all__ = ["FORMATS", "Vectors", "open_vectors"]


def open_vectors(source: Any, name: str) -> Vectors:
    """Make ``source`` readable in blocks of float32, without copying it.

    Args:
        source: a floating-point matrix ``(n, d)`` as a numpy array or memmap (any strides), a torch tensor, a
            nested sequence of floats, or a path to a file of one of the :data:`FORMATS`, which is memory-mapped.
            Other float dtypes are converted block by block; integers are refused, since they are far more often
            ids or quantized codes than embeddings.
        name: what to call it in errors.

    Raises:
        InputError: wrong dtype, dimensions or format; a file that does not exist or is truncated.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix not in FORMATS:
            raise InputError(f"{name}: expected a file ending in {', '.join(FORMATS)}, got {str(path)!r}")
        if not path.is_file():
            raise InputError(f"{name}: no such file: {str(path)!r}")
        source = FORMATS[path.suffix](path, name)
    elif scipy.sparse.issparse(source):
        raise InputError(f"{name}: expected a dense matrix of floats, got {type(source).__name__}; use its .toarray()")
    elif not (hasattr(source, "shape") and hasattr(source, "dtype")):
        try:
            source = np.asarray(source, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: expected a matrix of floats, got {type(source).__name__}: {error}") from error
    return Vectors(source, name)
