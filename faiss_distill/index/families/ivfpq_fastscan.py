"""``IndexIVFPQFastScan``: 4-bit PQ codes in inverted lists, in blocks for SIMD (André et al., VLDB 2015)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from faiss_distill.index.families.block_lists import BlockListsAdapter
from faiss_distill.index.families.ivfpq import IVFPQAdapter


class IVFPQFastScanAdapter(BlockListsAdapter, IVFPQAdapter):
    """One ``IndexIVFPQFastScan``."""

    traits = replace(IVFPQAdapter.traits, lists_in_a_file=False)

    def _check_family(self, ivf: Any) -> None:
        """Nothing more: it has no polysemous codes."""
