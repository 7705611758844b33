"""4-bit codes in blocks that one SIMD instruction looks up at a time, without inverted lists."""

from __future__ import annotations

from typing import Any

import faiss

from faiss_distill.index.families.codes import CodesAdapter
from faiss_distill.index.parts.packing import bytes_of_blocks, check_blocks, unpack_blocks
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.state import Packed


class BlockCodesAdapter(CodesAdapter):
    """What the FastScan forms of indexes without lists have in common.

    Their search rounds look-up tables to 8 bits, which training does not see.
    """

    def _check(self) -> None:
        check_blocks(self.core)
        self.codebooks = self._open_codebooks()
        check_size("bytes of codes", self.core.codes.size(), bytes_of_blocks(self.core, self.core.ntotal))

    @property
    def copies(self) -> int:
        """As without blocks, and the new codes before they are in blocks."""
        return super().copies + self.code_size

    def _read_codes(self) -> Packed:
        return unpack_blocks(self.core, faiss.vector_to_array(self.core.codes), self.core.ntotal)

    def _hold(self, packed: Packed) -> Any:
        # faiss itself makes the blocks, in converting an IndexPQ, of one dimension a code.
        plain: Any = faiss.IndexPQ(self.core.M, self.core.M, self.core.nbits)
        faiss.copy_array_to_vector(packed.ravel(), plain.codes)
        plain.is_trained, plain.ntotal = True, len(packed)
        return faiss.IndexPQFastScan(plain, self.core.bbs)
