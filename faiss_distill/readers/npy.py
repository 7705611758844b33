"""``.npy``: numpy's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.errors import InputError


def open_npy(path: Path, name: str) -> Any:
    """Memory-map ``path``.

    Raises:
        InputError: not a ``.npy`` file, or truncated.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{name}: {str(path)!r} is not a complete .npy file: {error}") from error
