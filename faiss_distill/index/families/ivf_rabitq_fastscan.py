"""``IndexIVFRaBitQFastScan``: ``IndexIVFRaBitQ`` with its codes in blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import faiss

from faiss_distill.index.families.block_lists import BlockListsAdapter
from faiss_distill.index.families.ivf_encoded import IVFRaBitQAdapter


class IVFRaBitQFastScanAdapter(BlockListsAdapter, IVFRaBitQAdapter):
    """One ``IndexIVFRaBitQFastScan``; the codes are the same, and the plain form reads and makes them."""

    traits = replace(IVFRaBitQAdapter.traits, lists_in_a_file=False)
    _in_blocks = faiss.IndexIVFRaBitQFastScan

    def _plain(self) -> Any:
        return self._like(self.core.quantizer)
