"""``.safetensors``: tensors by name, read a block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


class SlicedTensor:
    """A tensor in a file, of which rows are read when they are sliced.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor, one of torch's.
    """

    def __init__(self, tensor: Any) -> None:
        """Read no more than one row."""
        self._tensor = tensor
        self.shape: Sequence[int] = tuple(tensor.get_shape())
        self.dtype = tensor[:1].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Any:
        return self._tensor[rows]


def open_safetensors(path: Path, key: str | None, name: str) -> Any:
    """The tensor ``key``, or the only one, of ``path``.

    Raises:
        InputError: there is no such tensor, or it has no rows.
    """
    from safetensors import safe_open

    file: Any = safe_open(path, framework="pt")
    tensor = file.get_slice(chosen(key, file.keys(), path, name, "tensor"))
    if not tensor.get_shape():
        raise InputError(name, "a matrix (n, d)", "a number")
    return SlicedTensor(tensor)
