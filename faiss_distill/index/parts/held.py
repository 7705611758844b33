"""The vectors that an index holds as they are, or nearly so."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.state import Float32, Int64

NEARLY_EXACT = {getattr(faiss.ScalarQuantizer, f"QT_{kind}") for kind in ("8bit", "fp16", "bf16")}


class Decoded:
    """The vectors that an index stores, as a matrix float32 ``(n, d)`` that is decoded where it is read."""

    ndim, dtype, takes_rows = 2, np.dtype(np.float32), True
    owner: Any = None

    def __init__(self, index: Any) -> None:
        """Read nothing yet."""
        self._index = index
        self.shape: tuple[int, int] = index.ntotal, index.d

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice | Int64) -> Float32:
        """Some of the rows."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return np.asarray(self._index.reconstruct_n(start, stop - start))
        return np.asarray(self._index.reconstruct_batch(rows))


class _View(np.ndarray):
    """A view of memory that an index owns, which is kept along."""

    owner: Any = None


def vectors_held(index: Any) -> Float32 | Decoded | None:
    """The vectors in ``index``, float32 ``(n, d)``, or None if it keeps them too coarsely.

    Those of an ``IndexFlat`` are a view; those of a scalar quantizer of 8 bits or more, which are nearly exact, are
    decoded as they are read. What other codes hold is too far from the vectors to teach.
    """
    if isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype in NEARLY_EXACT:
        return Decoded(index)
    if not isinstance(index, faiss.IndexFlat) or index.ntotal == 0:
        return None
    rows: Float32 = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return rows.reshape(index.ntotal, index.d).view(_View)
