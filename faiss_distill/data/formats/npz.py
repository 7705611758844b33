"""``.npz``: numpy's arrays in a zip file, of which one is read as a whole."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.lib.npyio import NpzFile

from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


def open_npz(path: Path, key: str | None, name: str) -> Any:
    """Read the array ``key``, or the only one.

    Raises:
        InputError: there is no such array, or the file is not complete or holds Python objects.
    """
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            return arrays[chosen(key, arrays.files, path, name, "array")]
    except InputError:
        raise
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(name, "a complete .npz file of numbers", f"{str(path)!r}: {reason}") from error
