"""Inverted lists of FastScan: codes interleaved in blocks that one SIMD instruction looks up at a time."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.index.families.ivf import IVFAdapter
from faiss_distill.index.parts.packing import check_blocks, unpack_blocks
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.index.parts.write_back import fill_lists
from faiss_distill.state import Int64, Packed


class BlockListsAdapter(IVFAdapter):
    """What the FastScan forms of indexes with inverted lists have in common.

    faiss's search rounds its look-up tables to 8 bits, so its scores differ a little from those that training sees.
    """

    _in_blocks: Any = faiss.IndexIVFPQFastScan
    """The class that converts :meth:`_plain` into blocks."""

    def _check(self) -> None:
        super()._check()
        check_blocks(self.core)

    def _readable(self, invlists: Any) -> bool:
        return type(invlists) is faiss.BlockInvertedLists  # type: ignore[attr-defined]

    def _check_lists(self, invlists: Any) -> None:
        packer = self.core.get_CodePacker()
        check_size("vectors a block in its lists", invlists.n_per_block, packer.nvec)
        check_size("bytes a block in its lists", invlists.block_size, packer.block_size)

    @property
    def copies(self) -> int:
        """The new lists, and what they are made of."""
        return 2 * super().copies

    def _read_list(self, number: int) -> tuple[Int64, Packed]:
        lists: Any = faiss.downcast_InvertedLists(self.core.invlists)
        size = lists.list_size(number)
        if size == 0:
            return np.empty(0, dtype=np.int64), np.empty((0, self.core.code_size), dtype=np.uint8)
        n_bytes = -(-size // lists.n_per_block) * lists.block_size
        blocks = faiss.rev_swig_ptr(lists.get_codes(number), n_bytes)
        return faiss.rev_swig_ptr(lists.get_ids(number), size).copy(), unpack_blocks(self.core, blocks, size)

    def _plain(self) -> Any:
        """An empty index without blocks, with codes of the same size: 4-bit ones, whatever they stand for."""
        m = self.core.M  # dimensions, one a code
        plain: Any = faiss.IndexIVFPQ(faiss.IndexFlatL2(m), m, self.nlist, m, self.core.nbits)
        plain.own_fields = False
        return plain

    def _hold(self, assignment: Int64, ids: Int64, packed: Packed) -> Any:
        # faiss itself makes the blocks, in converting a plain index: add_core and add_sa_codes would corrupt them.
        plain = self._plain()
        fill_lists(plain.invlists, assignment, ids, packed)
        plain.is_trained, plain.ntotal = True, len(ids)
        holder = self._in_blocks(plain, self.core.bbs)
        holder.own_fields = False
        return holder
