"""Matrices that can only be sliced, such as those of h5py, zarr, safetensors and Arrow, read like numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP, SPAN = 32, 512
"""Rows between two wanted ones that are read along, and rows that are read at a time."""


class Sliced:
    """A matrix whose rows are read by slices alone, each part of it once.

    Args:
        source: has ``shape``, ``dtype`` and slices, which numpy can convert.
        chunk: rows that can only be read together; None if any can.

    Attributes:
        shape: ``(n, ...)``.
        dtype: numpy's.
    """

    def __init__(self, source: Any, chunk: int | None = None) -> None:
        """Read no more than a row."""
        self._source, self._chunk = source, chunk
        self.shape = tuple(source.shape)
        self.dtype = source.dtype if isinstance(source.dtype, np.dtype) else _as_numpy(source[:1]).dtype

    @classmethod
    def over(cls, source: Any) -> Sliced:
        """One that reads as many rows together as the ``source`` does, if it says so in ``chunks``."""
        chunks = getattr(source, "chunks", None)
        return cls(source, int(chunks[0]) if isinstance(chunks, tuple) and chunks else None)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """A slice, or rows in any order, ``(k, ...)``."""
        if isinstance(rows, slice):
            return _as_numpy(self._source[rows])
        rows = np.asarray(rows)
        order = np.argsort(rows, kind="stable")
        ordered, parts = rows[order], []
        for start, stop in self._runs(ordered):
            first, last = int(ordered[start]), int(ordered[stop - 1])
            parts.append(_as_numpy(self._source[first : last + 1])[ordered[start:stop] - first])
        read = np.concatenate(parts) if parts else _as_numpy(self._source[:0])
        out = np.empty_like(read)
        out[order] = read
        return out

    def _runs(self, ordered: NDArray[np.integer[Any]]) -> list[tuple[int, int]]:
        """Where in ``ordered`` the rows begin and end that are read by one slice."""
        block = ordered // (self._chunk or SPAN)
        new = np.diff(block) != 0
        if self._chunk is None:
            new |= np.diff(ordered) > GAP
        cuts = np.flatnonzero(new) + 1
        return list(zip([0, *cuts.tolist()], [*cuts.tolist(), len(ordered)], strict=True)) if len(ordered) else []


def sliceable(source: Any) -> Any:
    """``source`` if it can be indexed with rows in any order, else a :class:`Sliced` over it."""
    if isinstance(source, np.ndarray | Sliced) or is_tensor(source) or getattr(source, "takes_rows", False):
        return source
    return Sliced.over(source)


def is_tensor(source: Any) -> bool:
    """Whether it is one of torch's, without importing that."""
    return hasattr(source, "detach")


def _as_numpy(part: Any) -> NDArray[Any]:
    """A slice as an array; a tensor of torch's as float32 if numpy has not its dtype."""
    if is_tensor(part):
        part = (part.float() if str(part.dtype) == "torch.bfloat16" else part).numpy(force=True)
    found: NDArray[Any] = np.asarray(part)
    return found
