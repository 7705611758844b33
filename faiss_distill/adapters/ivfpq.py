"""``IndexIVFPQ``: arrays out, arrays in."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.adapters.adapter import pq_facts, read_codebooks
from faiss_distill.adapters.ivf import IVFAdapter
from faiss_distill.adapters.packing import pack, unpack
from faiss_distill.adapters.transaction import fill_lists
from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.state import Codes, Float32, IndexState, Packed


class IVFPQAdapter(IVFAdapter):
    """One ``IndexIVFPQ``, or one of its kin in a subclass."""

    example = "OPQ16,IVF4096,PQ16"
    changes = "coarse centroids, PQ codebooks, codes, lists of vectors"

    def _check(self) -> None:
        super()._check()
        self._check_family(self.core)

    def _check_family(self, ivf: Any) -> None:
        """Refuse what only this family of indexes can have."""
        if ivf.polysemous_ht != 0:
            raise UnsupportedIndexError(
                f"index: expected polysemous_ht 0, got {ivf.polysemous_ht}; learned codebooks lose the codes' "
                f"bit order that polysemous filtering needs: set polysemous_ht = 0 to tune it"
            )

    def _hold(self, state: IndexState) -> Any:
        """An index off to the side with the codebooks, lists and codes of ``state``."""
        ivf, pq = self.core, self.core.pq
        holder = faiss.IndexIVFPQ(ivf.quantizer, ivf.d, ivf.nlist, pq.M, pq.nbits, ivf.metric_type)
        holder.own_fields, holder.by_residual, holder.is_trained = False, ivf.by_residual, True
        faiss.copy_array_to_vector(np.ascontiguousarray(state.codebooks).ravel(), holder.pq.centroids)
        fill_lists(holder.invlists, state.assignment, state.ids, pack(state.codes, pq.nbits))
        holder.ntotal = state.n
        return holder

    def _codebooks(self) -> Float32:
        return read_codebooks(self.core.pq)

    def _unpack(self, packed: Packed) -> Codes:
        return unpack(packed, self.core.pq.M, self.core.pq.nbits)

    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows of this family."""
        return super().facts() | pq_facts(self.core.pq)
