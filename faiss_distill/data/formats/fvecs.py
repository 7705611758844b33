"""``.fvecs``: for each vector its dimension as int32, then that many float32 (the TEXMEX corpora's format)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError

ROWS = 65_536
"""Whose dimensions are read at a time."""


def open_fvecs(path: Path, name: str) -> Any:
    """Memory-map ``path`` as float32 ``(n, d)``.

    Raises:
        InputError: truncated, or not of this format.
    """
    size = path.stat().st_size
    d = int(np.fromfile(path, dtype="<i4", count=1)[0]) if size >= 4 else 0
    row = 4 * (d + 1)
    if d <= 0 or size % row:
        raise InputError(name, "a complete .fvecs file", f"{str(path)!r}: {size} bytes, first dimension {d}")
    raw = np.memmap(path, dtype="<i4", mode="r", shape=(size // row, d + 1))
    for start in range(0, len(raw), ROWS):
        others = np.flatnonzero(raw[start : start + ROWS, 0] != d)
        if len(others):
            row = start + int(others[0])
            raise InputError(
                name, "vectors of one dimension", f"{str(path)!r}: {d} in row 0 and {raw[row, 0]} in row {row}"
            )
    return raw.view("<f4")[:, 1:]
