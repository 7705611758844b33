"""Additive quantizers with 4-bit codes in blocks for SIMD, with inverted lists and without.

For L2 a code ends in the norm of the vector, as two 4-bit codes more, and faiss's distances leave out the query's. In
lists, the norm is that of the whole vector, centroid and codewords together. ``norm_scale``, by which a search rounds
norms less coarsely than the rest, stays as trained: any value is right, and tuned indexes would get the same.
"""

from __future__ import annotations

from dataclasses import replace

from faiss_distill.index.families.additive import AdditiveAdapter, IVFAdditiveAdapter, quantizer_of
from faiss_distill.index.families.block_codes import BlockCodesAdapter
from faiss_distill.index.families.block_lists import BlockListsAdapter
from faiss_distill.index.parts.codebooks import AdditiveCodebooks, Codebooks


class AdditiveFastScanAdapter(BlockCodesAdapter, AdditiveAdapter):
    """One ``IndexAdditiveQuantizerFastScan``, of any kind."""


class IVFAdditiveFastScanAdapter(BlockListsAdapter, IVFAdditiveAdapter):
    """One ``IndexIVFAdditiveQuantizerFastScan``, of any kind."""

    traits = replace(IVFAdditiveAdapter.traits, lists_in_a_file=False)

    def _open_codebooks(self) -> Codebooks:
        return AdditiveCodebooks(quantizer_of(self.core), self.core.metric_type, with_centroids=self.core.by_residual)
