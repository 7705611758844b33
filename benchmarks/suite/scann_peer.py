"""ScaNN (Guo et al., ICML 2020) as a baseline: the same leaves and bytes as the faiss index beside it."""

from __future__ import annotations

import importlib
import math
from typing import Any

import faiss
import numpy as np

from benchmarks.suite.experiment import Experiment
from benchmarks.suite.results import Row
from faiss_distill.state import Float32, Int64

THRESHOLDS = {"ScaNN": 0.2, "ScaNN, not anisotropic": float("nan")}
"""Of its anisotropic loss: what its authors use for unit-norm embeddings, and off, which does better on short codes."""


class ScannSearcher:
    """A ScaNN index without reordering, so that like faiss's it keeps nothing but codes.

    Args:
        scann: the module.
        documents: float32 ``(n, d)``.
        nlist: leaves of the tree.
        size: bytes of a code: of ``2 * size`` blocks with 4 bits each.
        threshold: of the anisotropic loss, NaN for none.
    """

    def __init__(self, scann: Any, documents: Float32, nlist: int, size: int, threshold: float) -> None:
        """Train and fill."""
        d = documents.shape[1]
        self.dimensions_per_block = d * 4 // (8 * size)
        if self.dimensions_per_block * 2 * size != d:
            raise ValueError(f"size: expected 2 * size to divide the dimension {d}, got {size}")
        builder = scann.scann_ops_pybind.builder(documents, 10, "dot_product")
        builder = builder.tree(num_leaves=nlist, num_leaves_to_search=1, training_sample_size=len(documents))
        builder = builder.score_ah(self.dimensions_per_block, anisotropic_quantization_threshold=threshold)
        self._index = builder.build()

    def search(self, vectors: Float32, k: int, nprobe: int) -> tuple[Int64, float | None]:
        """See :class:`benchmarks.suite.measure.Searcher`; ScaNN does not say how many codes it scanned."""
        parallel = faiss.omp_get_max_threads() > 1
        search = self._index.search_batched_parallel if parallel else self._index.search_batched
        found, scores = search(vectors, final_num_neighbors=k, leaves_to_search=nprobe)
        ids = np.full((len(vectors), k), -1, dtype=np.int64)
        ids[:, : found.shape[1]] = np.where(np.isfinite(scores), found.astype(np.int64), -1)
        return ids, None


def scann_rows(experiment: Experiment) -> list[Row]:
    """Its rows, without runs where it is not installed."""
    try:
        scann = importlib.import_module("scann")
    except ImportError:
        return [Row(name, (), baseline=True, missing="not installed") for name in THRESHOLDS]
    return [_row(experiment, scann, name, threshold) for name, threshold in THRESHOLDS.items()]


def _row(e: Experiment, scann: Any, name: str, threshold: float) -> Row:
    documents = e.data.documents
    # Its training is random and takes no seed: it is trained anew for each.
    searchers = [ScannSearcher(scann, documents, e.nlist, e.bytes, threshold) for _ in e.seeds]
    settings = {
        "leaves": e.nlist,
        "nprobe": e.nprobe,
        "dimensions_per_block": searchers[0].dimensions_per_block,
        "anisotropic_quantization_threshold": None if math.isnan(threshold) else threshold,
        "reorder": False,
    }
    return e.peer_row(name, searchers, settings)
