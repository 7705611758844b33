"""Lists of codes that faiss makes: ``IndexIVFFlat``, ``IndexIVFScalarQuantizer`` and ``IndexIVFRaBitQ``.

There are no codebooks to learn, so centroids and lists are; codes that hold what is left of a vector after its centroid
are made anew, by faiss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.index.families.ivf import IVFAdapter
from faiss_distill.index.traits import Traits
from faiss_distill.state import Float32, IndexState, Int64, Packed


class IVFEncodedAdapter(IVFAdapter):
    """One index whose codes faiss itself makes and reads."""

    traits = Traits()

    def _check(self) -> None:
        super()._check()
        if self.traits.fixed is not None:
            raise UnsupportedIndexError(
                "index",
                "a coarse quantizer whose centroids can move",
                f"{type(self._quantizer).__name__}: there is nothing else to learn in an {type(self.core).__name__}",
                "replace it with faiss.contrib.ivf_tools.replace_ivf_quantizer",
            )

    @abstractmethod
    def _like(self, quantizer: Any) -> Any:
        """An empty index that encodes as this one does, but with another coarse quantizer, which it does not own."""

    def decode(self, state: IndexState, rows: Int64) -> Float32:
        """What the codes of the vectors ``rows`` of a ``state`` of this index stand for: float32 ``(len(rows), d)``."""
        index = self._like(self._quantizer)  # not decode_vectors, which left out SQ's centroids until faiss 1.14
        lists = state.assignment[rows].astype("<i8").view(np.uint8).reshape(-1, 8)[:, : index.coarse_code_size()]
        decoded: Float32 = index.sa_decode(np.hstack([lists, state.codes[rows]]))
        return decoded

    def _codes_of(self, state: IndexState, vectors: Float32) -> Packed:
        """The codes, uint8 ``(n, code_size)``, that faiss gives to ``vectors (n, d)`` in the lists of ``state``."""
        return encoded(self._like(self._quantizer), vectors, np.ascontiguousarray(state.assignment))

    def encoder(self, quantizer: Any) -> Callable[[Float32, Int64], Packed] | None:
        """What makes codes relative to the centroids of ``quantizer``; None where they hold the vectors themselves."""
        return partial(encoded, self._like(quantizer)) if self._follows_centroids else None


def encoded(index: Any, vectors: Float32, lists: Int64) -> Packed:
    """What ``index`` stores of ``vectors (n, d)`` in ``lists (n,)``: uint8 ``(n, code_size)``."""
    codes = np.empty((len(vectors), index.code_size), dtype=np.uint8)
    pointers = [faiss.swig_ptr(a) for a in (vectors, lists, codes)]
    index.encode_vectors(len(vectors), *pointers)
    return codes


class IVFFlatAdapter(IVFEncodedAdapter):
    """One ``IndexIVFFlat``: the vectors themselves, which move between lists."""

    def _like(self, quantizer: Any) -> Any:
        index = faiss.IndexIVFFlat(quantizer, self.core.d, self.nlist, self.core.metric_type)
        index.own_fields = False
        return index


class IVFScalarQuantizerAdapter(IVFEncodedAdapter):
    """One ``IndexIVFScalarQuantizer``; its ranges stay."""

    traits = Traits(codes="codes to go with them")

    def _like(self, quantizer: Any) -> Any:
        core = self.core
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, core.d, self.nlist, core.sq.qtype, core.metric_type, core.by_residual
        )
        index.own_fields, index.sq, index.is_trained = False, core.sq, True
        return index

    @property
    def trained(self) -> dict[str, Any]:
        """By name, all that training has made and adding relies on."""
        sq = self.core.sq
        return {**super().trained, "ranges": (sq.qtype, faiss.vector_to_array(sq.trained).tobytes())}


def rabitq_bits(index: Any) -> int:
    """Bits a dimension of an index with RaBitQ: 1 before faiss 1.13.2, which knows no others."""
    return int(getattr(index.rabitq, "nb_bits", 1))


class IVFRaBitQAdapter(IVFEncodedAdapter):
    """One ``IndexIVFRaBitQ``; its codes hold factors of the centroids."""

    traits = Traits(codes="codes to go with them")

    def _like(self, quantizer: Any) -> Any:
        core = self.core
        more = (True, rabitq_bits(core)) if rabitq_bits(core) > 1 else ()
        index = faiss.IndexIVFRaBitQ(quantizer, core.d, self.nlist, core.metric_type, *more)
        index.own_fields, index.rabitq, index.is_trained = False, core.rabitq, True
        return index

    @property
    def _follows_centroids(self) -> bool:
        """Always: faiss ignores its ``by_residual``."""
        return True

    @property
    def trained(self) -> dict[str, Any]:
        """By name, all that training has made and adding relies on."""
        return {**super().trained, "bits": rabitq_bits(self.core)}
