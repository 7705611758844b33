"""What other libraries take of an index with product codes: its state, and its transforms as one rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.index.parts.codebooks import ProductCodebooks
from faiss_distill.index.registry import IndexAdapter, open_index
from faiss_distill.index.sources import as_index
from faiss_distill.state import Float32, IndexState

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex, PathLike

ROUNDING = 1e-4
"""What a matrix of faiss, in float32, may be off a rotation."""


def open_product(index: FaissIndex | PathLike) -> tuple[IndexAdapter, IndexState, Float32, Float32 | None]:
    """Open an index with product codes, behind nothing but rotations.

    Returns:
        Its adapter; its state; its codebooks ``(M, ksub, dsub)``; and ``R (d, d)``, of which ``x @ R`` is what it
        encodes, or None if it has no transforms.

    Raises:
        UnsupportedIndexError: its codes are of another kind, or it does something else to vectors than rotate them.
        InputError: it is untrained, empty, or no index at all.
    """
    adapter = open_index(as_index(index))
    if not isinstance(adapter.codebooks, ProductCodebooks):
        raise UnsupportedIndexError("index", "one with product codes", adapter.description)
    rotation = None
    for step in adapter.transforms.steps:
        if step is None or step[1].any() or not _rotates(step[0]):
            expected = "no transforms but rotations, such as OPQ without fewer dimensions"
            raise UnsupportedIndexError("index", expected, adapter.description, "apply others yourself")
        rotation = step[0] if rotation is None else rotation @ step[0]
    state = adapter.extract()
    assert state.codebooks is not None
    return adapter, state, np.ascontiguousarray(state.codebooks[:, 0]), rotation


def _rotates(matrix: Float32) -> bool:
    d_in, d_out = matrix.shape
    return d_in == d_out and bool(np.allclose(matrix.T @ matrix, np.eye(d_in), atol=ROUNDING))
