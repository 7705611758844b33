"""Additive quantizers, with inverted lists and without: residual, local search, and products of these.

Which codewords stand for a vector is a search of its own, so codes are found in :mod:`faiss_distill.learning.codes`;
faiss is only given them to store.
"""

from __future__ import annotations

from typing import Any

from faiss_distill.index.families.codes import CodesAdapter
from faiss_distill.index.families.ivf import IVFAdapter
from faiss_distill.index.parts.codebooks import AdditiveCodebooks, Codebooks
from faiss_distill.index.traits import Traits

NAMES = ("rq", "lsq", "prq", "plsq")


def quantizer_of(core: Any) -> Any:
    """The additive quantizer that is part of an index, of its real class; None if it has none."""
    return next((getattr(core, name) for name in NAMES if hasattr(core, name)), None)


class AdditiveAdapter(CodesAdapter):
    """One index of additive codes alone."""

    def _open_codebooks(self) -> Codebooks:
        return AdditiveCodebooks(quantizer_of(self.core), self.core.metric_type)


class IVFAdditiveAdapter(IVFAdapter):
    """One index of additive codes in inverted lists."""

    traits = Traits(codebooks="codebooks", codes="codes")

    def _check(self) -> None:
        super()._check()
        self.codebooks = self._open_codebooks()

    def _open_codebooks(self) -> Codebooks:
        """The index's codebooks."""
        return AdditiveCodebooks(quantizer_of(self.core), self.core.metric_type)
