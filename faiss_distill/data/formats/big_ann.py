"""``.fbin``, ``.u8bin``, ``.i8bin``, ``.ibin``: the number of rows and their length as int32, then all of them.

These are the formats of big-ann-benchmarks. A file whose name ends in ``.crop_nb_N`` holds the first N rows, under the
header of the whole. One of ground truth goes on after its ids with as many float32 distances.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError

HEADER = 8
"""Bytes."""
DISTANCE = 4
"""Bytes."""


def _open(path: Path, key: str | None, name: str, *, dtype: str) -> Any:
    """Memory-map ``path`` as ``(n, d)``.

    Raises:
        InputError: the file's size does not follow from its header, or from its name.
    """
    size = path.stat().st_size
    n, d = np.fromfile(path, dtype="<u4", count=2).tolist() if size >= HEADER else (0, 0)
    cropped = re.search(r"\.crop_nb_(\d+)$", path.name)
    rows = n if cropped is None else min(n, int(cropped[1]))
    own = np.dtype(dtype).itemsize
    sizes = {HEADER + own * rows * d} | ({HEADER + (own + DISTANCE) * rows * d} if dtype == "<i4" else set())
    if rows <= 0 or d <= 0 or size not in sizes:
        kind = path.name if cropped is not None else path.suffix
        raise InputError(name, f"a complete {kind} file", f"{str(path)!r}: {size} bytes, header says {n} x {d}")
    return np.memmap(path, dtype=dtype, mode="r", offset=HEADER, shape=(rows, d))


open_fbin = partial(_open, dtype="<f4")
open_u8bin = partial(_open, dtype="u1")
open_i8bin = partial(_open, dtype="i1")
open_ibin = partial(_open, dtype="<i4")
