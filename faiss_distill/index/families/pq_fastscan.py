"""``IndexPQFastScan``: PQ codes in blocks, without inverted lists (André et al., VLDB 2015)."""

from __future__ import annotations

from faiss_distill.index.families.block_codes import BlockCodesAdapter
from faiss_distill.index.families.pq import PQAdapter


class PQFastScanAdapter(BlockCodesAdapter, PQAdapter):
    """One ``IndexPQFastScan``."""
