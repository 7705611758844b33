"""``IndexPQFastScan``: 4-bit codes in blocks that one SIMD instruction looks up at a time, without inverted lists."""

from __future__ import annotations

from typing import Any

import faiss

from faiss_distill.adapters.packing import check_blocks, unpack_blocks
from faiss_distill.adapters.pq import PQAdapter
from faiss_distill.state import IndexState, Packed


class PQFastScanAdapter(PQAdapter):
    """One ``IndexPQFastScan``; its search rounds look-up tables to 8 bits, which training does not see."""

    example = "PQ32x4fs"

    def _check(self) -> None:
        check_blocks(self.core)

    def _read_codes(self) -> Packed:
        return unpack_blocks(self.core, faiss.vector_to_array(self.core.codes), self.core.ntotal)

    def _hold(self, state: IndexState) -> Any:
        # faiss itself makes the blocks, in converting an IndexPQ.
        return faiss.IndexPQFastScan(super()._hold(state), self.core.bbs)
