"""``IndexIVFPQFastScan``: 4-bit codes in blocks that one SIMD instruction looks up at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.adapters.adapter import Adapter
from faiss_distill.adapters.ivfpq import IVFPQAdapter
from faiss_distill.adapters.packing import check_blocks, unpack_blocks
from faiss_distill.adapters.transaction import fill_lists
from faiss_distill.state import Int64, Packed


class IVFPQFastScanAdapter(IVFPQAdapter):
    """One ``IndexIVFPQFastScan``: parameters as in ``IndexIVFPQ``, codes interleaved in blocks of 32 vectors.

    faiss's search rounds its look-up tables to 8 bits, so its scores differ a little from those that training sees.
    """

    def _check_family(self, ivf: Any) -> None:
        check_blocks(ivf)

    def _readable(self, invlists: Any) -> bool:
        return type(invlists) is faiss.BlockInvertedLists  # type: ignore[attr-defined]

    def put_lists_in(self, file: Path) -> None:
        """Not possible: blocks are in memory.

        Raises:
            InputError: always.
        """
        Adapter.put_lists_in(self, file)

    def _read_list(self, number: int) -> tuple[Int64, Packed]:
        lists: Any = faiss.downcast_InvertedLists(self.core.invlists)
        size = lists.list_size(number)
        if size == 0:
            return np.empty(0, dtype=np.int64), np.empty((0, self.core.code_size), dtype=np.uint8)
        n_bytes = -(-size // lists.n_per_block) * lists.block_size
        blocks = faiss.rev_swig_ptr(lists.get_codes(number), n_bytes)
        return faiss.rev_swig_ptr(lists.get_ids(number), size).copy(), unpack_blocks(self.core, blocks, size)

    def _hold(self, assignment: Int64, ids: Int64, packed: Packed) -> Any:
        # faiss itself makes the blocks, in converting an IndexIVFPQ: add_core and add_sa_codes would corrupt them. It
        # copies the lists, so the one that has none of its own codebooks will do.
        ivf, pq = self.core, self.core.pq
        plain = faiss.IndexIVFPQ(ivf.quantizer, ivf.d, ivf.nlist, pq.M, pq.nbits, ivf.metric_type)
        plain.own_fields, plain.is_trained, plain.ntotal = False, True, len(ids)
        fill_lists(plain.invlists, assignment, ids, packed)
        holder = faiss.IndexIVFPQFastScan(plain, ivf.bbs)
        holder.own_fields = False
        return holder
