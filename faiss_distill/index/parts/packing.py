"""How faiss packs PQ codes: into bits, and into the blocks of FastScan."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.columns import column
from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.state import Codes, Packed, code_dtype

ROWS = 2**16
"""Codes that are packed at a time."""
BLOCK = 32
"""Vectors in a block of FastScan, faiss's default."""


def pack(codes: Any, nbits: int) -> Any:
    """faiss's bit packing: codes ``(n, M)`` to uint8 ``(n, code_size)``."""
    if nbits == 8:
        return np.ascontiguousarray(codes, dtype=np.uint8)
    packed = column((len(codes), -(-codes.shape[1] * nbits // 8)), np.uint8)
    for start in range(0, len(codes), ROWS):
        part = np.ascontiguousarray(codes[start : start + ROWS], dtype=np.int32)
        packed[start : start + ROWS] = faiss.pack_bitstrings(part, nbits)
    return packed


def unpack(packed: Any, n_segments: int, nbits: int) -> Codes:
    """Codes ``(n, M)`` of the narrowest dtype from uint8 ``(n, code_size)``."""
    codes = column((len(packed), n_segments), code_dtype(2**nbits))
    for start in range(0, len(packed), ROWS):
        part = packed[start : start + ROWS]
        if nbits == 8:
            codes[start : start + ROWS] = part[:, :n_segments]  # norms may follow
        else:
            codes[start : start + ROWS] = faiss.unpack_bitstrings(part, n_segments, nbits)
    return codes


def check_blocks(index: Any) -> None:
    """Refuse FastScan blocks of other sizes: faiss 1.15's ``CodePackerPQ4`` reads wrong codes from them.

    Raises:
        UnsupportedIndexError: ``bbs`` is not 32.
    """
    if index.bbs != BLOCK:
        raise UnsupportedIndexError(
            "index",
            f"blocks of {BLOCK} vectors (bbs)",
            f"{index.bbs}, whose codes faiss does not unpack",
            f"rebuild it without _{index.bbs} in its factory string",
        )


def bytes_of_blocks(index: Any, n: int) -> int:
    """What the FastScan blocks of ``n`` codes take, as ``index`` packs them."""
    packer = index.get_CodePacker()
    return int(-(-n // packer.nvec) * packer.block_size)


def unpack_blocks(index: Any, blocks: Packed, n: int) -> Packed:
    """The first ``n`` codes, uint8 ``(n, code_size)``, of FastScan ``blocks``, uint8, as ``index`` packs them."""
    packer = index.get_CodePacker()
    blocks = blocks.reshape(-1, packer.block_size)
    codes = np.empty((len(blocks), packer.nvec, packer.code_size), dtype=np.uint8)
    for block, out in zip(blocks, codes, strict=True):
        packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(out))
    return codes.reshape(-1, packer.code_size)[:n]  # without what fills up the last block
