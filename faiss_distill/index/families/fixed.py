"""Indexes that can be searched and measured, and not tuned: flat ones, graphs and others without inverted lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import faiss
import numpy as np

from faiss_distill.index.adapter import OneListAdapter
from faiss_distill.index.cost import Cost, graph_distances
from faiss_distill.index.traits import Traits
from faiss_distill.state import Float32, IndexState, Int64


class FixedAdapter(OneListAdapter):
    """One such index."""

    traits = Traits(takes_a_sample=False, lists_in_a_file=False, summary="nothing")

    def _check(self) -> None:
        """Nothing: faiss searches it."""

    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """The vectors met in an HNSW graph; else all, though other graphs meet fewer."""
        met = graph_distances(self.core, self.transforms(queries), values)
        return Cost(met or float(len(queries) * self.core.ntotal))

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, without a graph's links."""
        return int(self._storage.sa_code_size())

    @property
    def copies(self) -> int:
        """None: nothing of it is read."""
        return 0

    @property
    def _storage(self) -> Any:
        """What holds the vectors: the index itself, or what is behind a graph."""
        return faiss.downcast_index(self.core.storage) if hasattr(self.core, "storage") else self.core

    def extract(self) -> IndexState:
        """How many vectors it holds; their codes stay where they are."""
        n, d = self.core.ntotal, self.core.d
        return IndexState(
            metric=self.metric,
            coarse_metric=self.metric,
            by_residual=False,
            centroids=np.zeros((1, d), dtype=np.float32),
            codebooks=None,
            assignment=np.zeros(n, dtype=np.int64),
            codes=np.empty((n, 0), dtype=np.uint8),
            ids=np.arange(n, dtype=np.int64),
        )

    @property
    def decodes(self) -> bool:
        """Whether faiss can reconstruct what such an index stores."""
        try:
            self._storage.sa_decode(self._storage.sa_encode(self.core.reconstruct_batch(np.zeros(1, dtype=np.int64))))
        except RuntimeError:
            return False
        return True

    def decode(self, state: IndexState, rows: Int64) -> Float32:
        """What faiss reconstructs: float32 ``(len(rows), d)``."""
        return np.asarray(self.core.reconstruct_batch(state.ids[rows]))

    def encode_again(self, state: IndexState, rows: Int64, vectors: Float32) -> Float32:
        """What ``vectors (len(rows), d)`` would be stored as: float32 ``(len(rows), d)``."""
        storage = self._storage
        return np.asarray(storage.sa_decode(storage.sa_encode(np.ascontiguousarray(vectors))))

    def quantizer_with(self, centroids: Float32, router: Float32 | None = None) -> NoReturn:
        """Not of such an index."""
        raise NotImplementedError

    def _transaction(self, state: IndexState, quantizer: Any, words: Any, lists: bool, file: Path | None) -> NoReturn:
        raise NotImplementedError
