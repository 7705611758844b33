"""``IndexIVFPQFastScan``: 4-bit PQ codes in inverted lists, in blocks for SIMD (André et al., VLDB 2015)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import faiss

from faiss_distill.index.families.block_lists import BlockListsAdapter
from faiss_distill.index.families.ivfpq import IVFPQAdapter


class IVFPQFastScanAdapter(BlockListsAdapter, IVFPQAdapter):
    """One ``IndexIVFPQFastScan``.

    faiss's search rounds its look-up tables to 8 bits, so its scores differ a little from those that training sees.
    """

    traits = replace(IVFPQAdapter.traits, lists_in_a_file=False)

    def _check_family(self, ivf: Any) -> None:
        """Nothing more: it has no polysemous codes."""

    def _plain(self) -> Any:
        ivf, pq = self.core, self.core.pq  # it copies the lists, so its codebooks do not matter
        plain = faiss.IndexIVFPQ(ivf.quantizer, ivf.d, ivf.nlist, pq.M, pq.nbits, ivf.metric_type)
        plain.own_fields = False
        return plain
