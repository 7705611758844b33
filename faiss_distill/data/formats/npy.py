"""``.npy``: numpy's own format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from faiss_distill.errors import InputError

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def open_npy(path: Path, key: str | None, name: str) -> Any:
    """Memory-map ``path``.

    Raises:
        InputError: not a ``.npy`` file, of Python objects, or truncated.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = HEADERS[npy.read_magic(file)](file)
            offset, size = file.tell(), path.stat().st_size
    except OSError:
        raise
    except Exception as error:  # whatever Python's own parser, which numpy has read the header, makes of it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(name, "a complete .npy file", f"{str(path)!r}: {reason}") from error
    if dtype.hasobject:
        raise InputError(
            name,
            "numbers",
            f"a .npy file of Python objects, {str(path)!r}",
            "load it with allow_pickle, if you trust it, and save it as numbers",
        )
    addressable = min(shape, default=0) >= 0 and dtype.itemsize * math.prod(n or 1 for n in shape) < 2**63
    if not addressable or size < offset + dtype.itemsize * math.prod(shape):
        raise InputError(
            name, "a complete .npy file", f"{str(path)!r}: {size} bytes, header says {dtype} of shape {shape}"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
