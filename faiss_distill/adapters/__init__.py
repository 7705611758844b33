"""faiss indexes as plain arrays and back. One index family a file; faiss's objects stay in here."""

from __future__ import annotations

from typing import Any

import faiss

from faiss_distill.adapters.adapter import Adapter
from faiss_distill.adapters.containers import unwrap
from faiss_distill.adapters.ivf_encoded import IVFFlatAdapter, IVFRaBitQAdapter, IVFScalarQuantizerAdapter
from faiss_distill.adapters.ivfpq import IVFPQAdapter
from faiss_distill.adapters.ivfpq_fastscan import IVFPQFastScanAdapter
from faiss_distill.adapters.pq import PQAdapter
from faiss_distill.adapters.pq_fastscan import PQFastScanAdapter
from faiss_distill.errors import InputError, UnsupportedIndexError

ADAPTERS: dict[type, type[Adapter]] = {
    faiss.IndexIVFPQ: IVFPQAdapter,
    faiss.IndexIVFPQFastScan: IVFPQFastScanAdapter,
    faiss.IndexIVFFlat: IVFFlatAdapter,
    faiss.IndexIVFScalarQuantizer: IVFScalarQuantizerAdapter,
    faiss.IndexIVFRaBitQ: IVFRaBitQAdapter,
    faiss.IndexPQ: PQAdapter,
    faiss.IndexPQFastScan: PQFastScanAdapter,
}

"""The families that can be tuned: one row each, of which the documentation's table and every message are made."""

REFUSED: dict[type, str] = {
    faiss.IndexFlat: "it is exact already",
    faiss.IndexFlatIP: "it is exact already",
    faiss.IndexFlatL2: "it is exact already",
    faiss.IndexHNSWFlat: "it compares exact vectors, and only its graph decides what it finds; set a larger efSearch",
    faiss.IndexHNSWPQ: "its graph was built from its codes and would go stale; use lists with an HNSW coarse "
    "quantizer, such as IVF4096_HNSW32,PQ16",
    faiss.IndexIVFPQR: "its second codes refine the first ones; spend the bytes on longer codes, or refine with RFlat",
    faiss.IndexResidualQuantizer: "additive codebooks can't be learned yet; use PQ",
    faiss.IndexIVFResidualQuantizer: "additive codebooks can't be learned yet; use PQ",
    faiss.IndexLocalSearchQuantizer: "additive codebooks can't be learned yet; use PQ",
    faiss.IndexIVFLocalSearchQuantizer: "additive codebooks can't be learned yet; use PQ",
    faiss.IndexShards: "tune each of its shards by itself, index.at(i), with its own embeddings",
    faiss.IndexReplicas: "tune one of its replicas, index.at(0), and replicate that",
}
"""Why not, of other classes that are asked for."""

__all__ = ["ADAPTERS", "REFUSED", "Adapter", "open_index"]


def open_index(index: Any) -> Adapter:
    """The adapter of an index, with everything checked that tuning relies on; the index is not touched.

    Raises:
        UnsupportedIndexError: the index's class, or a part of it, can't be tuned.
        InputError: the index is untrained, empty or inconsistent, or ``index`` is not one at all.
    """
    if isinstance(index, faiss.IndexBinary):
        raise UnsupportedIndexError(
            f"index: an {type(index).__name__} can't be tuned: it compares bits, not embeddings"
        )
    if not isinstance(index, faiss.Index):
        raise InputError(
            f"index: expected a faiss.Index, got {type(index).__name__}; "
            f"read a file with faiss.read_index, and take the faiss index out of a wrapper"
        )
    wrapped = unwrap(index)
    family = ADAPTERS.get(type(wrapped.core))
    if family is None:
        why = REFUSED.get(type(wrapped.core))
        if why is not None:
            raise UnsupportedIndexError(f"index: an {type(wrapped.core).__name__} can't be tuned: {why}")
        known = ", ".join(sorted(c.__name__ for c in ADAPTERS))
        raise UnsupportedIndexError(
            f"index: expected one of {known} (inside any of IndexPreTransform, IndexIDMap, IndexIDMap2, "
            f"IndexRefineFlat), got {type(wrapped.core).__name__}; build one with e.g. "
            f"faiss.index_factory(d, 'OPQ16,IVF1024,PQ16', metric)"
        )
    return family(wrapped)
