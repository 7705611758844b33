"""``.fvecs``, ``.bvecs``, ``.ivecs``: each row with its length before it as int32 (the TEXMEX corpora's formats)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError

ROWS = 65_536
"""Whose lengths are read at a time."""


def _open(path: Path, key: str | None, name: str, *, dtype: str) -> Any:
    """Memory-map ``path`` as ``(n, d)``.

    Raises:
        InputError: truncated, or not of this format.
    """
    size = path.stat().st_size
    d = int(np.fromfile(path, dtype="<i4", count=1)[0]) if size >= 4 else 0
    row = 4 + np.dtype(dtype).itemsize * d
    if d <= 0 or size % row:
        raise InputError(name, f"a complete {path.suffix} file", f"{str(path)!r}: {size} bytes, first dimension {d}")
    raw = np.memmap(path, dtype=np.dtype([("d", "<i4"), ("row", dtype, (d,))]), mode="r", shape=(size // row,))
    for start in range(0, len(raw), ROWS):
        others = np.flatnonzero(raw["d"][start : start + ROWS] != d)
        if len(others):
            at = start + int(others[0])
            raise InputError(
                name, "vectors of one dimension", f"{str(path)!r}: {d} in row 0 and {raw['d'][at]} in row {at}"
            )
    return raw["row"]


open_fvecs = partial(_open, dtype="<f4")
open_bvecs = partial(_open, dtype="u1")
open_ivecs = partial(_open, dtype="<i4")
