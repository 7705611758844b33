"""``IndexIVFPQFastScan``: 4-bit codes in blocks that one SIMD instruction looks up at a time."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.adapters.ivfpq import IVFPQAdapter
from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.state import Int64, IVFPQState, Packed

BLOCK = 32
"""Vectors in a block, faiss's default."""


class IVFPQFastScanAdapter(IVFPQAdapter):
    """One ``IndexIVFPQFastScan``: parameters as in ``IndexIVFPQ``, codes interleaved in blocks of 32 vectors.

    faiss's search rounds its look-up tables to 8 bits, so its scores differ a little from those that training sees.
    """

    def _check_family(self, ivf: Any) -> None:
        """Refuse blocks of other sizes: faiss 1.15's ``CodePackerPQ4`` reads wrong codes from them."""
        if ivf.bbs != BLOCK:
            raise UnsupportedIndexError(
                f"index: expected blocks of {BLOCK} vectors (bbs), got {ivf.bbs}, whose codes faiss does not unpack; "
                f"rebuild it without _{ivf.bbs} in its factory string"
            )

    def _in_memory(self, invlists: Any) -> bool:
        return type(invlists) is faiss.BlockInvertedLists  # type: ignore[attr-defined]

    def _read_list(self, number: int) -> tuple[Int64, Packed]:
        lists: Any = faiss.downcast_InvertedLists(self.ivf.invlists)
        size, packer = lists.list_size(number), self.ivf.get_CodePacker()
        n_blocks = -(-size // packer.nvec)
        codes = np.empty((n_blocks, packer.nvec, packer.code_size), dtype=np.uint8)
        if n_blocks == 0:
            return np.empty(0, dtype=np.int64), codes[:, 0]
        ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
        blocks = faiss.rev_swig_ptr(lists.get_codes(number), n_blocks * packer.block_size)
        for block, out in zip(blocks.reshape(n_blocks, -1), codes, strict=True):
            packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(out))
        return ids, codes.reshape(-1, packer.code_size)[:size]  # without what fills up the last block

    def _hold(self, state: IVFPQState) -> Any:
        # faiss itself makes the blocks, in converting an IndexIVFPQ: add_core and add_sa_codes would corrupt them.
        holder = faiss.IndexIVFPQFastScan(super()._hold(state), self.ivf.bbs)
        holder.own_fields = False
        return holder
