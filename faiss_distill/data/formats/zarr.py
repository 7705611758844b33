"""``.zarr``: a folder with an array, or a group of some; read with zarr, a chunk at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_distill.data.formats.extras import imported
from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


def open_zarr(path: Path, key: str | None, name: str) -> Any:
    """The array in ``path``, or of a group the one that ``key`` says, or the only one.

    Raises:
        InputError: there is no such array.
        MissingDependencyError: zarr is not installed.
    """
    zarr = imported("zarr", "zarr", name)
    held = zarr.open(str(path), mode="r")
    if isinstance(held, zarr.Group):
        arrays = dict(held.arrays())
        return arrays[chosen(key, arrays, path, name, "array")]
    if key is not None:
        raise InputError(name, "a path without a key, as the folder holds one array", f"{path}:{key}")
    return held
