"""``.pt``: a tensor, or a dict of some, as ``torch.save`` writes it, mapped; other objects are refused by torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faiss_distill.data.formats.keys import chosen
from faiss_distill.errors import InputError


def open_torch(path: Path, key: str | None, name: str) -> Any:
    """The tensor of ``path``, or of a dict the one that ``key`` says, or the only one.

    Raises:
        InputError: it holds something else.
    """
    import torch

    held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(held, Mapping):
        tensors = {str(k): value for k, value in held.items() if isinstance(value, torch.Tensor)}
        return tensors[chosen(key, tensors, path, name, "tensor")]
    if not isinstance(held, torch.Tensor):
        raise InputError(name, "a tensor, or a dict of some", f"a {type(held).__name__} in {str(path)!r}")
    if key is not None:
        raise InputError(name, "a path without a key, as the file holds one tensor", f"{path!s}:{key}")
    return held
