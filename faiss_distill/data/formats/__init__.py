"""File formats of vectors, one a file: each maps what is in the file as a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_distill.data.formats import fbin, fvecs, npy
from faiss_distill.data.formats.files import check_file
from faiss_distill.errors import InputError

FORMATS = {".npy": npy.open_npy, ".fvecs": fvecs.open_fvecs, ".fbin": fbin.open_fbin}
"""What opens a file of each suffix: a function of its path and of what to call it in errors."""


def open_file(path: Path, name: str) -> Any:
    """What is in a file of one of the formats, memory-mapped.

    Raises:
        InputError: it is of none, not there, truncated, or can't be read.
    """
    if path.suffix not in FORMATS:
        raise InputError(name, f"a file ending in {', '.join(FORMATS)}", repr(str(path)))
    check_file(path, name)
    try:
        return FORMATS[path.suffix](path, name)
    except OSError as error:
        raise InputError(name, "a file that can be read", f"{str(path)!r}: {error.strerror or error}") from error
