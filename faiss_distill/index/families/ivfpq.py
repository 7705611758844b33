"""``IndexIVFPQ``: PQ codes in inverted lists (Jégou et al., TPAMI 2011, DOI 10.1109/TPAMI.2010.57)."""

from __future__ import annotations

from typing import Any

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.index.families.ivf import IVFAdapter
from faiss_distill.index.parts.codebooks import ProductCodebooks
from faiss_distill.index.traits import Traits


class IVFPQAdapter(IVFAdapter):
    """One ``IndexIVFPQ``, or one of its kin in a subclass."""

    traits = Traits(codebooks="PQ codebooks", codes="codes")

    def _check(self) -> None:
        super()._check()
        self._check_family(self.core)
        self.codebooks = ProductCodebooks(self.core.pq)

    def _check_family(self, ivf: Any) -> None:
        """Refuse what only this family of indexes can have."""
        if ivf.polysemous_ht != 0:
            raise UnsupportedIndexError(
                "index",
                "polysemous_ht 0",
                str(ivf.polysemous_ht),
                "learned codebooks lose the codes' bit order that polysemous filtering needs: set polysemous_ht = "
                "0 to tune it",
            )
