"""The index families that can be tuned, a row each, and the functions that open an index by the row it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss

from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.adapter import IndexAdapter
from faiss_distill.index.families.additive import AdditiveAdapter, IVFAdditiveAdapter
from faiss_distill.index.families.additive_fastscan import AdditiveFastScanAdapter, IVFAdditiveFastScanAdapter
from faiss_distill.index.families.fixed import FixedAdapter
from faiss_distill.index.families.ivf_encoded import IVFFlatAdapter, IVFRaBitQAdapter, IVFScalarQuantizerAdapter
from faiss_distill.index.families.ivf_rabitq_fastscan import IVFRaBitQFastScanAdapter
from faiss_distill.index.families.ivfpq import IVFPQAdapter
from faiss_distill.index.families.ivfpq_fastscan import IVFPQFastScanAdapter
from faiss_distill.index.families.pq import PQAdapter
from faiss_distill.index.families.pq_fastscan import PQFastScanAdapter
from faiss_distill.index.families.shards import ReplicasAdapter, ShardsAdapter
from faiss_distill.index.parts.containers import unwrap


@dataclass(frozen=True)
class Family:
    """A row of the registry.

    Attributes:
        adapter: what opens an index of the family.
        example: a factory string of it; None where it is made of indexes of others.
    """

    adapter: type[IndexAdapter]
    example: str | None


FAMILIES: dict[type, Family] = {
    faiss.IndexIVFPQ: Family(IVFPQAdapter, "OPQ16,IVF4096,PQ16np"),
    faiss.IndexIVFPQFastScan: Family(IVFPQFastScanAdapter, "IVF4096,PQ32x4fsr"),
    faiss.IndexPQ: Family(PQAdapter, "OPQ16,PQ16np"),
    faiss.IndexPQFastScan: Family(PQFastScanAdapter, "PQ32x4fs"),
    faiss.IndexIVFResidualQuantizer: Family(IVFAdditiveAdapter, "IVF4096,RQ16x8"),
    faiss.IndexIVFLocalSearchQuantizer: Family(IVFAdditiveAdapter, "IVF4096,LSQ16x8"),
    faiss.IndexIVFProductResidualQuantizer: Family(IVFAdditiveAdapter, "IVF4096,PRQ4x4x8"),
    faiss.IndexIVFProductLocalSearchQuantizer: Family(IVFAdditiveAdapter, "IVF4096,PLSQ4x4x8"),
    faiss.IndexResidualQuantizer: Family(AdditiveAdapter, "RQ16x8"),
    faiss.IndexLocalSearchQuantizer: Family(AdditiveAdapter, "LSQ16x8"),
    faiss.IndexProductResidualQuantizer: Family(AdditiveAdapter, "PRQ4x4x8"),
    faiss.IndexProductLocalSearchQuantizer: Family(AdditiveAdapter, "PLSQ4x4x8"),
    faiss.IndexIVFResidualQuantizerFastScan: Family(IVFAdditiveFastScanAdapter, "IVF4096,RQ32x4fsr"),
    faiss.IndexIVFLocalSearchQuantizerFastScan: Family(IVFAdditiveFastScanAdapter, "IVF4096,LSQ32x4fsr"),
    faiss.IndexIVFProductResidualQuantizerFastScan: Family(IVFAdditiveFastScanAdapter, "IVF4096,PRQ8x4x4fsr"),
    faiss.IndexIVFProductLocalSearchQuantizerFastScan: Family(IVFAdditiveFastScanAdapter, "IVF4096,PLSQ8x4x4fsr"),
    faiss.IndexResidualQuantizerFastScan: Family(AdditiveFastScanAdapter, "RQ32x4fs"),
    faiss.IndexLocalSearchQuantizerFastScan: Family(AdditiveFastScanAdapter, "LSQ32x4fs"),
    faiss.IndexProductResidualQuantizerFastScan: Family(AdditiveFastScanAdapter, "PRQ8x4x4fs"),
    faiss.IndexProductLocalSearchQuantizerFastScan: Family(AdditiveFastScanAdapter, "PLSQ8x4x4fs"),
    faiss.IndexIVFFlat: Family(IVFFlatAdapter, "IVF4096,Flat"),
    faiss.IndexIVFScalarQuantizer: Family(IVFScalarQuantizerAdapter, "IVF4096,SQ8"),
    faiss.IndexIVFRaBitQ: Family(IVFRaBitQAdapter, "IVF4096,RaBitQ"),
    faiss.IndexShards: Family(ShardsAdapter, None),
    faiss.IndexReplicas: Family(ReplicasAdapter, None),
}
"""The families that can be tuned: one row each, of which the documentation's table and every message are made."""

REFUSED: dict[type, str] = {
    faiss.IndexFlat: "it is exact already",
    faiss.IndexFlatIP: "it is exact already",
    faiss.IndexFlatL2: "it is exact already",
    faiss.IndexHNSWFlat: "it compares exact vectors, and only its graph decides what it finds; set a larger efSearch",
    faiss.IndexHNSWPQ: "its graph was built from its codes and would go stale; use lists with an HNSW coarse "
    "quantizer, such as IVF4096_HNSW32,PQ16np",
    faiss.IndexIVFPQR: "its second codes refine the first ones; spend the bytes on longer codes, or refine with RFlat",
    faiss.IndexShardsIVF: "its shards share a coarse quantizer; make an IndexShards of indexes with their own",
}
"""Why not, of other classes that are asked for."""

if tuple(map(int, faiss.__version__.split(".")[:2])) >= (1, 15):
    FAMILIES[faiss.IndexIVFRaBitQFastScan] = Family(IVFRaBitQFastScanAdapter, "IVF4096,RaBitQfs")
else:
    REFUSED[faiss.IndexIVFRaBitQFastScan] = f"faiss {faiss.__version__} can't make its lists; faiss 1.15 can"

__all__ = ["FAMILIES", "REFUSED", "Family", "IndexAdapter", "open_index", "open_to_measure"]


def open_index(index: Any) -> IndexAdapter:
    """The adapter of an index, with everything checked that tuning relies on; the index is not touched.

    Raises:
        UnsupportedIndexError: the index's class, or a part of it, can't be tuned.
        InputError: the index is untrained, empty or inconsistent, or ``index`` is not one at all.
    """
    if isinstance(index, faiss.IndexBinary):
        raise UnsupportedIndexError(
            "index", "one that can be tuned", f"an {type(index).__name__}: it compares bits, not embeddings"
        )
    if not isinstance(index, faiss.Index):
        raise InputError(
            "index",
            "a faiss.Index",
            type(index).__name__,
            "read a file with faiss.read_index, and take the faiss index out of a wrapper",
        )
    if type(index).__name__.startswith("Gpu"):
        raise UnsupportedIndexError(
            "index",
            "one in the memory of the CPU",
            f"a {type(index).__name__}",
            "tune its copy, index = faiss.index_gpu_to_cpu(index), and bring that back with faiss.index_cpu_to_gpu",
        )
    wrapped = unwrap(index)
    family = FAMILIES.get(type(wrapped.core))
    if family is None:
        why = REFUSED.get(type(wrapped.core))
        if why is not None:
            raise UnsupportedIndexError("index", "one that can be tuned", f"an {type(wrapped.core).__name__}: {why}")
        known = ", ".join(sorted(c.__name__ for c in FAMILIES))
        raise UnsupportedIndexError(
            "index",
            f"one of {known} (inside any of IndexPreTransform, IndexIDMap, IndexIDMap2, IndexRefine, IndexRefineFlat)",
            type(wrapped.core).__name__,
            "build one with e.g. faiss.index_factory(d, 'OPQ16,IVF1024,PQ16np', metric)",
        )
    return family.adapter(wrapped)


def open_to_measure(index: Any) -> IndexAdapter:
    """As :func:`open_index`, but any index without inverted lists will do.

    Raises:
        UnsupportedIndexError: the index has lists and can't be tuned, or is of bits, or on a GPU.
        InputError: the index is untrained, empty or inconsistent, or ``index`` is not one at all.
    """
    try:
        return open_index(index)
    except UnsupportedIndexError:
        if not isinstance(index, faiss.Index) or type(index).__name__.startswith("Gpu"):
            raise
        wrapped = unwrap(index)
        if type(wrapped.core) in FAMILIES or isinstance(wrapped.core, faiss.IndexIVF | faiss.IndexShardsIVF):
            raise
        return FixedAdapter(wrapped)


def check_searchable(index: Any, d: int, name: str, wanted: str) -> None:
    """Refuse what can't be searched with float vectors of ``d`` dimensions; ``name`` and ``wanted`` are for the error.

    Raises:
        InputError: it is no faiss index of floats, not trained, empty, or of other dimensions.
    """
    if not isinstance(index, faiss.Index):
        raise InputError(name, wanted, type(index).__name__)
    if index.d != d:
        raise InputError(name, f"an index of dimension {d}, as the queries have", str(index.d))
    if not index.is_trained or index.ntotal == 0:
        raise InputError(name, "an index that is trained and filled", "one that is empty")
