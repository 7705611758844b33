"""``.hdf5``: datasets by name, as ann-benchmarks has them; read with h5py, a block at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faiss_distill.data.formats.extras import imported
from faiss_distill.data.formats.keys import chosen


def open_hdf5(path: Path, key: str | None, name: str) -> Any:
    """The dataset ``key``, or the only one, of ``path``.

    Raises:
        InputError: there is no such dataset.
        MissingDependencyError: h5py is not installed.
    """
    h5py = imported("h5py", "hdf5", name)
    file = h5py.File(path, "r")
    held: list[str] = []
    file.visititems(lambda at, item: held.append(at) if isinstance(item, h5py.Dataset) else None)
    return file[chosen(key.strip("/") if key else None, held, path, name, "dataset")]
