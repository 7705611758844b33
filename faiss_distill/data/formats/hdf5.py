"""``.hdf5``: datasets by name, as ann-benchmarks has them; read with h5py, a block at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_distill.data.formats.extras import imported
from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


def open_hdf5(path: Path, key: str | None, name: str) -> Any:
    """The dataset ``key``, or the only one, of ``path``.

    Raises:
        InputError: there is no such dataset, or the file is not complete.
        MissingDependencyError: h5py is not installed.
    """
    h5py = imported("h5py", "hdf5", name)
    try:
        file = h5py.File(path, "r")
    except OSError as error:  # of HDF5, which knows no other
        raise InputError(name, "a complete HDF5 file", f"{str(path)!r}: {error}") from error
    held: list[str] = []
    file.visititems(lambda at, item: held.append(at) if isinstance(item, h5py.Dataset) else None)
    return file[chosen(key.strip("/") if key else None, held, path, name, "dataset")]
