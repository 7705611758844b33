"""Coarse quantizers: read their centroids, make a copy with others, and overwrite one in place."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.state import Float32

FLAT = (faiss.IndexFlat, faiss.IndexFlatL2, faiss.IndexFlatIP)
GRAPHS = (faiss.IndexHNSWFlat, faiss.IndexHNSWSQ, faiss.IndexNSGFlat)

BY_EXACT_NEIGHBOURS = 0
"""``IndexNSG.build_type``; its other one aborts the process on some centroids."""


def movable(quantizer: Any) -> bool:
    """Whether its centroids can become others: not so where they are sums or products of few, or a view of others."""
    kind = type(quantizer)
    if kind is faiss.IndexRefineFlat:
        return movable(faiss.downcast_index(quantizer.base_index))
    return kind in (*FLAT, *GRAPHS, faiss.IndexScalarQuantizer)


def router_of(quantizer: Any) -> Float32 | None:
    """What lists are found by where that is not what ``quantizer`` reconstructs, float32 ``(nlist, d)``; else None.

    An ``IndexRefineFlat`` over a flat index, with a ``k_factor`` of 1, chooses by the latter and only then scores.
    """
    if type(quantizer) is not faiss.IndexRefineFlat or quantizer.k_factor != 1:
        return None
    base: Any = faiss.downcast_index(quantizer.base_index)
    return base.reconstruct_n(0, base.ntotal) if type(base) in FLAT else None


def with_router(quantizer: Any, centroids: Float32, router: Float32) -> Any:
    """A coarse quantizer of the metric of ``quantizer`` that finds lists by ``router`` and holds ``centroids``.

    Both are ``(nlist, d)``. ``search`` finds by the router and returns the centroids' scores; ``reconstruct`` and
    residuals are of the centroids; ``assign``, by which faiss adds vectors, goes by the router.
    """
    base: Any = faiss.IndexFlat(quantizer.d, quantizer.metric_type)
    base.add(router)
    whole: Any = faiss.IndexRefineFlat(base, faiss.swig_ptr(centroids))
    base.this.disown()
    whole.own_fields = True
    return whole


def routes(new: Any, old: Any) -> bool:
    """Whether ``new`` has a router and ``old``, a flat one, has not."""
    return type(new) is faiss.IndexRefineFlat and type(old) in FLAT


def around(flat: Any, source: Any) -> Any:
    """The like of ``source``, a coarse quantizer with a router, around a ``flat`` one, which it does not own.

    Whoever holds the flat one, of which ``source`` says what it shall hold, goes on with the router.
    """
    refined: Any = faiss.downcast_index(source.refine_index)
    return faiss.IndexRefineFlat(flat, refined.get_xb())


def check_quantizer(quantizer: Any, nlist: int, d: int) -> None:
    """Refuse a quantizer whose centroids can't be read, or would be written to where they are mapped from.

    Raises:
        UnsupportedIndexError: faiss can't reconstruct its centroids.
        InputError: it holds fewer centroids than the index has lists, or such of another dimension, or they are
            memory-mapped, and writing to them would abort the process.
    """
    if isinstance(quantizer, faiss.IndexIVF) and quantizer.direct_map.no():
        raise UnsupportedIndexError(
            "index",
            "a coarse quantizer that reconstructs its centroids",
            f"{type(quantizer).__name__} without a direct map, with which faiss aborts the process when it adds",
            "put an RFlat behind it, or call its make_direct_map()",
        )
    check_size("centroids in its coarse quantizer", quantizer.ntotal, nlist)
    check_size("dimensions in its coarse quantizer", quantizer.d, d)
    stores = _stores(quantizer) if movable(quantizer) else []
    for store in stores:
        check_size("bytes of centroids", store.codes.size(), nlist * store.code_size)
    try:
        quantizer.reconstruct_n(0, nlist)
    except RuntimeError as error:
        raise UnsupportedIndexError(
            "index",
            "a coarse quantizer that reconstructs its centroids",
            f"{type(quantizer).__name__}: {str(error).splitlines()[-1]}",
            "replace it with faiss.contrib.ivf_tools.replace_ivf_quantizer",
        ) from error
    if not all(store.codes.is_owned for store in stores):
        raise InputError("index", "one in memory", "memory-mapped storage", "read it without IO_FLAG_MMAP_IFC")


def with_centroids(quantizer: Any, centroids: Float32) -> Any:
    """A copy of ``quantizer`` that holds ``centroids (nlist, d)``; a graph is built anew, by one thread.

    One thread because faiss's parallel construction of graphs depends on thread timing.
    """
    copy: Any = faiss.clone_index(quantizer)  # of the real class already; downcast_index would free it
    if np.array_equal(centroids, quantizer.reconstruct_n(0, len(centroids))):
        return copy
    copy.reset()
    if isinstance(copy, faiss.IndexNSG):
        copy.build_type = BY_EXACT_NEIGHBOURS
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        copy.train(centroids)
        copy.add(centroids)
    finally:
        faiss.omp_set_num_threads(threads)
    return copy


def overwrite(quantizer: Any, source: Any) -> None:
    """Give ``quantizer`` the contents of ``source``, of the same class and size, keeping the object itself."""
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw = source.hnsw
    elif isinstance(quantizer, faiss.IndexNSG):
        quantizer.nsg = source.nsg
    elif isinstance(quantizer, faiss.IndexRefineFlat):
        overwrite(faiss.downcast_index(quantizer.base_index), faiss.downcast_index(source.base_index))
    for target, origin in zip(_stores(quantizer), _stores(source), strict=True):
        faiss.memcpy(target.codes.data(), origin.codes.data(), origin.codes.size())
        if isinstance(target, faiss.IndexScalarQuantizer):
            target.sq.trained = origin.sq.trained
        if isinstance(target, faiss.IndexFlatL2) and target.cached_l2norms.size():
            target.sync_l2norms()


def _stores(quantizer: Any) -> list[Any]:
    """The objects whose ``codes`` hold the centroids, without those of a base that is refined."""
    if type(quantizer) in GRAPHS:
        return [faiss.downcast_index(quantizer.storage)]
    if isinstance(quantizer, faiss.IndexRefineFlat):
        return [faiss.downcast_index(quantizer.refine_index)]
    return [quantizer]
