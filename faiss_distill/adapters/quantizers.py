"""Coarse quantizers: read their centroids, make a copy with others, and overwrite one in place."""

from __future__ import annotations

from typing import Any

import faiss

from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.state import Float32

FLAT = (faiss.IndexFlat, faiss.IndexFlatL2, faiss.IndexFlatIP)


def check_quantizer(quantizer: Any) -> None:
    """Refuse a quantizer that can't be rewritten.

    Raises:
        UnsupportedIndexError: its class is not supported.
        InputError: its centroids are memory-mapped, and writing to them would abort the process.
    """
    fp16 = isinstance(quantizer, faiss.IndexScalarQuantizer) and quantizer.sq.qtype == faiss.ScalarQuantizer.QT_fp16
    if not (type(quantizer) in FLAT or type(quantizer) is faiss.IndexHNSWFlat or fp16):
        raise UnsupportedIndexError(
            f"index: expected a coarse quantizer of IndexFlat, IndexHNSWFlat or IndexScalarQuantizer with fp16, "
            f"got {type(quantizer).__name__}; replace it with faiss.contrib.ivf_tools.replace_ivf_quantizer"
        )
    if not _storage(quantizer).codes.is_owned:
        raise InputError("index: expected one in memory, got memory-mapped storage; read it without IO_FLAG_MMAP_IFC")


def with_centroids(quantizer: Any, centroids: Float32) -> Any:
    """A copy of ``quantizer`` that holds ``centroids (nlist, d)``; a graph is built anew, by one thread.

    One thread because faiss's parallel HNSW construction depends on thread timing.
    """
    copy = faiss.clone_index(quantizer)  # of the real class already; downcast_index would free it
    copy.reset()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        copy.add(centroids)
    finally:
        faiss.omp_set_num_threads(threads)
    return copy


def overwrite(quantizer: Any, source: Any) -> None:
    """Give ``quantizer`` the contents of ``source``, of the same class and size, keeping the object itself."""
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw = source.hnsw
    target, origin = _storage(quantizer), _storage(source)
    faiss.memcpy(target.codes.data(), origin.codes.data(), origin.codes.size())
    if isinstance(target, faiss.IndexFlatL2) and target.cached_l2norms.size():
        target.sync_l2norms()


def _storage(quantizer: Any) -> Any:
    """The object whose ``codes`` hold the centroids."""
    return faiss.downcast_index(quantizer.storage) if isinstance(quantizer, faiss.IndexHNSW) else quantizer
