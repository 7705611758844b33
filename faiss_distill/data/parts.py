"""A corpus in parts: a list of files, a folder of them, or a pattern, in natural order, as one array."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.data.formats import BY_SUFFIX, is_file, open_file, parted, suffix_of
from faiss_distill.data.sliced import Sliced
from faiss_distill.errors import InputError


def open_source(source: str | Path, name: str) -> Any:
    """What a path stands for: a file of one of the formats, or the parts in a folder or of a pattern.

    Raises:
        InputError: see :func:`~faiss_distill.data.formats.open_file` and :func:`open_parts`.
        MissingDependencyError: the library that reads the format is not installed.
    """
    files = files_of(source, name)
    return open_file(source, name) if files is None else open_parts(files, name)


def leads_to(source: str | Path) -> list[Path]:
    """The files that are read from a path: those of its parts if it has some, without a key, or the path itself."""
    try:
        files = files_of(source, "")
    except InputError:  # there are none
        files = None
    return [parted(Path(file).expanduser())[0] for file in files or [str(source)]]


class Parts:
    """Arrays of one dimension, one below the other.

    Args:
        parts: at least one, of shape ``(n_i, d)``, or ``(n_i,)`` of numbers.

    Attributes:
        shape: ``(n, d)``, or ``(n,)``.
        dtype: numpy's, to which all can be converted.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        """Touch no data."""
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            first = end - len(part)
            a, b = max(start, first), min(stop, end)
            if a < b:
                out[a - start : b - start] = part[a - first : b - first]
        return out


def open_parts(sources: Sequence[str | Path], name: str) -> Any:
    """Files of one corpus, in their order, as one array.

    Raises:
        InputError: one of them can't be opened, or is of another dimension than the first.
    """
    parts: list[Any] = []
    for source in sources:
        part = Sliced.over(open_file(source, name))
        if len(part.shape) not in (1, 2) or (parts and part.shape[1:] != parts[0].shape[1:]):
            expected = "matrices (n, d)"
            if parts:
                expected = f"dimension {parts[0].shape[1]}" if len(parts[0].shape) == 2 else "single numbers"
                expected += f", as {sources[0]} has"
            raise InputError(name, expected, f"shape {tuple(part.shape)} in {str(source)!r}")
        parts.append(part)
    if not parts:
        raise InputError(name, "at least one file", "none")
    return parts[0] if len(parts) == 1 else Parts(parts)


def files_of(source: str | Path, name: str) -> list[str] | None:
    """The files that a folder or a pattern stands for, in natural order, each with the key that follows; None for one.

    Raises:
        InputError: there are none, or files of several formats.
    """
    path, key = parted(Path(source).expanduser())
    if is_file(path):
        if not glob.has_magic(str(path)) or path.exists():
            return None
        found = [Path(each) for each in glob.glob(str(path), recursive=True)]  # noqa: PTH207  absolute ones
    elif path.is_dir():
        found = [each for each in path.iterdir() if is_file(each) and not each.name.startswith(".")]
    else:
        return None
    kinds = {suffix_of(each) for each in found}
    if len(kinds) != 1:
        got = f"{', '.join(sorted(kinds))}" if kinds else "none"
        raise InputError(name, f"files of one format in {str(path)!r} ({', '.join(BY_SUFFIX)})", got)
    return [str(each) + (f":{key}" if key else "") for each in sorted(found, key=natural)]


def by_their_names(source: Any) -> bool:
    """Whether a path stands for parts that are in another order where names are sorted as texts: 10 before 9."""
    if not isinstance(source, str | Path):
        return False
    files = files_of(source, "")
    return files is not None and files != sorted(files)


def natural(path: Path) -> list[Any]:
    """What to sort paths by, so that part 10 comes after part 9.

    Examples:
        >>> sorted(map(Path, ("p10.npy", "p9.npy")), key=natural)
        [PosixPath('p9.npy'), PosixPath('p10.npy')]
    """
    words = re.split(r"(\d+)", str(path))
    return [int(word) if word.isdecimal() else word for word in words]
