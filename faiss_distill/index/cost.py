"""What a search computes, counted for that search alone.

faiss adds up what all searches of a process compute, of whichever index and in whichever thread, so its counters say
nothing of one index where others are searched meanwhile. They are neither read nor reset here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import faiss
import numpy as np

from faiss_distill.state import Float32

untyped: Any = faiss
"""faiss's type stubs lack some of what is used here."""
BLOCK_QUERIES = 256
"""Queries whose visited vectors are held at a time."""


class Cost(NamedTuple):
    """What a search of several queries computes, over all of them.

    Attributes:
        codes: codes compared; in an index without lists all, or the vectors met in its graph.
        in_graph: distances to centroids computed in the graph of an HNSW coarse quantizer.
    """

    codes: float
    in_graph: float = 0.0


def graph_distances(index: Any, queries: Float32, values: Mapping[str, float]) -> float:
    """The distances that a search for ``queries (nq, d)`` computes in an HNSW graph; 0 if the index is not one.

    As faiss counts them; but a search for more results than ``efSearch`` goes on among vectors at equal distances,
    which is not counted here (1 in 10,000 seen).

    Args:
        index: any, also in containers.
        queries: as ``index`` takes them.
        values: ``efSearch``, if it is not to be the graph's own.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for i in range(chain.size()):
            queries = faiss.downcast_VectorTransform(chain.at(i)).apply(queries)
        return graph_distances(index.index, queries, values)
    if isinstance(index, faiss.IndexIDMap):
        return graph_distances(index.index, queries, values)
    if isinstance(index, faiss.IndexRefine):
        return graph_distances(index.base_index, queries, values)
    if not isinstance(index, faiss.IndexHNSW):
        return 0.0
    ef_search = int(values.get("efSearch", index.hnsw.efSearch))
    return float(_in_upper_levels(index, queries) + _in_level_0(index, queries, ef_search))


def _in_level_0(index: Any, queries: Float32, ef_search: int) -> int:
    """Vectors met in the lowest level, which a search within an infinite radius returns; the first was met above."""
    radius = -np.inf if untyped.is_similarity_metric(index.metric_type) else np.inf
    parameters = untyped.SearchParametersHNSW(efSearch=ef_search)
    met = 0
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = queries[start : start + BLOCK_QUERIES]
        met += int(index.range_search(block, radius, params=parameters)[0][-1]) - len(block)
    return met


def _in_upper_levels(index: Any, queries: Float32) -> int:
    """Distances computed on the way down, by faiss's own descent, which says how many."""
    hnsw: Any = index.hnsw
    distance: Any = faiss.downcast_index(index.storage).get_distance_computer()
    if untyped.is_similarity_metric(index.metric_type) and not getattr(hnsw, "is_similarity", False):
        distance.this.disown()  # older versions of faiss descend to the smallest, and the wrapper owns what it wraps
        distance = untyped.NegativeDistanceComputer(distance)
    nearest, to_nearest = np.empty(1, dtype=np.int32), np.empty(1, dtype=np.float32)
    computed = 0
    for query in np.ascontiguousarray(queries):
        distance.set_query(faiss.swig_ptr(query))
        nearest[0], to_nearest[0] = hnsw.entry_point, distance(hnsw.entry_point)
        for level in range(hnsw.max_level, 0, -1):
            pointers = faiss.swig_ptr(nearest), faiss.swig_ptr(to_nearest)
            computed += untyped.greedy_update_nearest(hnsw, distance, level, *pointers).ndis
    return computed
