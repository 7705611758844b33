"""Results as files, found again by the content of what they were made from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import faiss_distill

Arrays = dict[str, NDArray[Any]]


def digest(*parts: str | int | NDArray[Any] | None) -> str:
    """SHA-256 over the parts in order, each with its type and size: no two lists of parts run into each other.

    Examples:
        >>> digest("ab", "c") == digest("a", "bc"), digest(1) == digest("1"), digest(None) == digest(None)
        (False, False, True)
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"array {part.dtype.str} {part.shape}\n".encode())
            sha.update(np.ascontiguousarray(part).data)
        else:
            content = str(part).encode()
            sha.update(f"{type(part).__name__} {len(content)}\n".encode() + content)
    return sha.hexdigest()


def library_source(package: Path = Path(faiss_distill.__file__).parent) -> str:
    """Digest of the source of every module of the library: a change to any of them asks for new runs."""
    files = sorted(package.rglob("*.py"))
    return digest(*(text for f in files for text in (str(f.relative_to(package)), f.read_text(encoding="utf-8"))))


class Cache:
    """A folder of ``.npz`` files. A file is there whole or not at all, so an interrupted run resumes from it.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        """Touch nothing yet."""
        self.folder = folder

    def has(self, kind: str, key: str) -> bool:
        """Whether :meth:`get` would only read."""
        return self._path(kind, key).exists()

    def get(self, kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
        """What is stored under ``key``, a :func:`digest`; if nothing is, what ``make`` gives, from now on stored."""
        path = self._path(kind, key)
        if not path.exists():
            made = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, **made)  # type: ignore[arg-type]
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
        with np.load(path) as stored:
            return dict(stored)

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / f"{kind}-{key[:32]}.npz"
