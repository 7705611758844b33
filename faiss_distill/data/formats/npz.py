"""``.npz``: numpy's arrays in a zip file, of which one is read as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.lib.npyio import NpzFile

from faiss_distill.data.formats.keys import chosen


def open_npz(path: Path, key: str | None, name: str) -> Any:
    """Read the array ``key``, or the only one.

    Raises:
        InputError: there is no such array.
    """
    with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
        return arrays[chosen(key, arrays.files, path, name, "array")]
