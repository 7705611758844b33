"""File formats of vectors, one a file: each opens what is in the file as a matrix, whose rows can be sliced.

A path may go on in a key, as in ``corpus.hdf5:train``, where a file holds more than one array.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faiss_distill.checks import did_you_mean
from faiss_distill.data.formats import arrow, big_ann, hdf5, npy, npz, parquet, raw, tensors, torch_file, vecs, zarr
from faiss_distill.data.formats.files import check_file, check_there
from faiss_distill.errors import DistillError, InputError


@dataclass(frozen=True)
class Format:
    """One row of :data:`FORMATS`.

    Attributes:
        suffixes: of its files, in lower case.
        open: what is in one: a function of its path, of the key that follows it, or None, and of what to call it in
            errors. What else it raises than these counts as a damaged file.
        holds: what that is, in words.
        key: what the key is, in a word; empty if there is none.
        extra: the extra of this package that it needs, or empty.
        folder: whether it is a folder.
        read: how much of it is in memory at a time, in words.
    """

    suffixes: tuple[str, ...]
    open: Callable[[Path, str | None, str], Any]
    holds: str
    key: str = ""
    extra: str = ""
    folder: bool = False
    read: str = "mapped"


FORMATS = (
    Format((".npy",), npy.open_npy, "a numpy array"),
    Format((".npz",), npz.open_npz, "numpy arrays", "array", read="whole"),
    Format((".fvecs",), vecs.open_fvecs, "float32, each row with its dimension (TEXMEX)"),
    Format((".bvecs",), vecs.open_bvecs, "uint8, each row with its dimension (TEXMEX)"),
    Format((".ivecs",), vecs.open_ivecs, "int32, each row with its length (TEXMEX): ids"),
    Format((".fbin",), big_ann.open_fbin, "float32 (big-ann-benchmarks)"),
    Format((".u8bin",), big_ann.open_u8bin, "uint8 (big-ann-benchmarks)"),
    Format((".i8bin",), big_ann.open_i8bin, "int8 (big-ann-benchmarks)"),
    Format((".ibin",), big_ann.open_ibin, "int32 (big-ann-benchmarks): ids"),
    Format((".raw", ".bin", ".dat", ".mmap"), raw.open_raw, "numbers and nothing else", "dtype,d"),
    Format((".hdf5", ".h5"), hdf5.open_hdf5, "datasets (ann-benchmarks)", "dataset", "hdf5", read="in blocks"),
    Format((".parquet",), parquet.open_parquet, "a table", "column", "arrow", read="in blocks"),
    Format((".arrow", ".feather"), arrow.open_arrow, "a table (Hugging Face datasets)", "column", "arrow"),
    Format((".safetensors",), tensors.open_safetensors, "tensors", "tensor"),
    Format((".pt", ".pth"), torch_file.open_torch, "a tensor, or a dict of some", "tensor"),
    Format((".zarr",), zarr.open_zarr, "an array, or a group of some", "array", "zarr", True, "in blocks"),
)
"""The formats, told apart by the ends of their names."""
BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
CROPPED = re.compile(r"(\.(?:fbin|u8bin|i8bin|ibin))\.crop_nb_\d+$")
"""Names of the first part of a file of big-ann-benchmarks."""
INDEXES = (".faiss", ".index", ".faissindex")
"""Ends of names that faiss's indexes go by, which may hold vectors too."""
_PICKLE = "a pickle can run any code: load it yourself, if you trust it, and np.save it as .npy"
_TEXT = "convert it first: np.save('x.npy', np.loadtxt(...))"
ADVICE = dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE) | dict.fromkeys((".csv", ".tsv", ".txt"), _TEXT)
"""What to do with files of other formats, by the ends of their names."""


def open_file(source: str | Path, name: str) -> Any:
    """What is in a file, or a folder, of one of the formats: an array or tensor, or what else can be sliced.

    Args:
        source: its path, perhaps with a key after a colon; ``~`` is the home folder.
        name: what to call it in errors.

    Raises:
        InputError: it is of no format, not there, truncated, or can't be read; or the key is wrong.
        MissingDependencyError: the library that reads the format is not installed.
    """
    path, key = parted(Path(source).expanduser())
    row = BY_SUFFIX.get(suffix_of(path))
    if row is None:
        raise _unknown(path, name)
    check_source(source, name)
    if key is not None and not row.key:
        raise InputError(name, f"a path without a key, as {path.suffix} holds one array", repr(str(source)))
    try:
        return row.open(path, key, name)
    except DistillError:
        raise
    except Exception as error:  # whatever a library makes of a file that is damaged
        expected = f"a complete {suffix_of(path)} file"
        if isinstance(error, MemoryError):
            expected = "a file that fits in memory"
        elif isinstance(error, OSError) and error.errno is not None:
            expected = "a file that can be read"
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(name, expected, f"{str(path)!r}: {reason}") from error


def check_source(source: str | Path, name: str) -> None:
    """Refuse a path, of whatever format, perhaps with a key after it, at which there is no file or folder.

    Raises:
        InputError: it is not there, can't be reached, or is something else.
    """
    path, _ = parted(Path(source).expanduser())
    row = BY_SUFFIX.get(suffix_of(path))
    (check_there if row is not None and row.folder else check_file)(path, name)


def suffix_of(path: Path) -> str:
    """The end of a name that tells its format, in lower case."""
    cropped = CROPPED.search(path.name.lower())
    return cropped[1] if cropped else path.suffix.lower()


def is_file(path: Path) -> bool:
    """Whether a name is that of a file, or folder, of one of the formats."""
    return suffix_of(parted(path)[0]) in BY_SUFFIX


def is_index(path: Path) -> bool:
    """Whether a name is that of a file of faiss's."""
    return path.suffix.lower() in INDEXES


def parted(path: Path) -> tuple[Path, str | None]:
    """A path, of a file or a folder of files, and the key after it, or None."""
    before, colon, key = str(path).rpartition(":")
    if colon and not path.exists() and (suffix_of(Path(before)) in BY_SUFFIX or Path(before).is_dir()):
        return Path(before), key
    return path, None


def _unknown(path: Path, name: str) -> InputError:
    suffix = suffix_of(path)
    if not suffix and not path.exists():
        return InputError(name, "a file or a folder that exists", repr(str(path)))
    hint = ADVICE.get(suffix, did_you_mean(suffix, BY_SUFFIX, 0.75))
    return InputError(name, f"a file ending in {', '.join(BY_SUFFIX)}", repr(str(path)), hint)
