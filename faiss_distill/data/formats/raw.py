"""``.raw``, ``.bin``, ``.dat``, ``.mmap``: numbers and nothing else, whose dtype and dimension the key says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError


def open_raw(path: Path, key: str | None, name: str) -> Any:
    """Memory-map ``path`` as ``(n, d)``, with a key such as ``float32,768``.

    Raises:
        InputError: no such key, or the file does not consist of such rows.
    """
    words, expected = (key or "").split(","), f"dtype and dimension after the path, as in {path.name}:float32,768"
    try:
        dtype, d = np.dtype(words[0].strip()), int(words[1])
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(name, expected, repr(key)) from error
    if len(words) != 2 or d < 1 or dtype.kind not in "fiu":
        raise InputError(name, expected, repr(key))
    size, row = path.stat().st_size, dtype.itemsize * d
    if not size or size % row:
        raise InputError(name, f"rows of {row} bytes, {d} of {dtype}", f"{str(path)!r}: {size} bytes")
    return np.memmap(path, dtype=dtype, mode="r", shape=(size // row, d))
