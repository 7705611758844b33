"""``.fbin``: the number of vectors and their dimension as int32, then all of them as float32 (big-ann-benchmarks)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError


def open_fbin(path: Path, name: str) -> Any:
    """Memory-map ``path`` as float32 ``(n, d)``.

    Raises:
        InputError: the file's size does not follow from its header.
    """
    size = path.stat().st_size
    n, d = np.fromfile(path, dtype="<u4", count=2).tolist() if size >= 8 else (0, 0)
    if n <= 0 or d <= 0 or size != 8 + 4 * n * d:
        raise InputError(name, "a complete .fbin file", f"{str(path)!r}: {size} bytes, header says {n} x {d}")
    return np.memmap(path, dtype="<f4", mode="r", offset=8, shape=(n, d))
