"""``IndexPQ``: codes without inverted lists. To the rest of this package it is one list, about the origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import faiss
import numpy as np

from faiss_distill.adapters.adapter import Adapter, pq_facts, read_codebooks
from faiss_distill.adapters.packing import pack, unpack
from faiss_distill.adapters.transaction import CodesWriteBack
from faiss_distill.config import Assignment, DistillConfig, Learn
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.state import Float32, IndexState, Packed


class PQAdapter(Adapter):
    """One ``IndexPQ``, or its kin in a subclass."""

    example = "OPQ16,PQ16"
    takes_a_sample = False  # its ids are positions
    changes = "PQ codebooks, codes"

    def _check(self) -> None:
        if self.core.search_type != faiss.IndexPQ.ST_PQ:  # type: ignore[attr-defined]
            raise UnsupportedIndexError(
                f"index: expected search_type ST_PQ, got {self.core.search_type}: other searches compare codes bit by "
                f"bit, and learned codebooks lose that order; set search_type = faiss.IndexPQ.ST_PQ to tune it"
            )
        if not self.core.codes.is_owned:
            raise UnsupportedIndexError(
                "index: expected codes in memory, got memory-mapped ones; read the index without IO_FLAG_MMAP_IFC"
            )

    def _read_codes(self) -> Packed:
        """Bit-packed codes, uint8 ``(n, code_size)``."""
        return faiss.vector_to_array(self.core.codes).reshape(self.core.ntotal, self.core.code_size)

    def _hold(self, state: IndexState) -> Any:
        """An index off to the side with the codebooks and codes of ``state``."""
        pq = self.core.pq
        holder: Any = faiss.IndexPQ(self.core.d, pq.M, pq.nbits, self.core.metric_type)
        faiss.copy_array_to_vector(np.ascontiguousarray(state.codebooks).ravel(), holder.pq.centroids)
        faiss.copy_array_to_vector(pack(state.codes, pq.nbits).ravel(), holder.codes)
        holder.is_trained, holder.ntotal = True, state.n
        return holder

    @property
    def nlist(self) -> int:
        """One list."""
        return 1

    @property
    def nprobe(self) -> int:
        """One, which is all."""
        return 1

    @contextmanager
    def probing(self, nprobe: int) -> Iterator[Callable[[int], float]]:
        """Search; gives the codes that a number of queries scan: all of them."""
        yield lambda n_queries: float(n_queries * self.core.ntotal)

    @property
    def imbalance(self) -> float:
        """1, as there is one list."""
        return 1.0

    def extract(self) -> IndexState:
        """Copy the index's codebooks and codes into plain arrays."""
        n, pq = self.core.ntotal, self.core.pq
        return IndexState(
            metric=self.metric,
            coarse_metric=self.metric,
            by_residual=False,
            centroids=np.zeros((1, self.core.d), dtype=np.float32),
            codebooks=read_codebooks(pq),
            assignment=np.zeros(n, dtype=np.int64),
            codes=unpack(self._read_codes(), pq.M, pq.nbits),
            ids=np.arange(n, dtype=np.int64),
        )

    def quantizer_with(self, centroids: Float32) -> tuple[Any, Float32]:
        """None: there is no quantizer; and the centroid."""
        return None, centroids

    def _transaction(self, state: IndexState, quantizer: Any, lists: bool) -> CodesWriteBack:
        if lists and state.n != self.core.ntotal:  # a search would read past the codes
            raise InputError(f"codes: expected those of all {self.core.ntotal} vectors, got {state.n}")
        return CodesWriteBack(self.core, state.codebooks, self._hold(state) if lists else None)

    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows of this family."""
        return pq_facts(self.core.pq)

    def effective(self, config: DistillConfig) -> DistillConfig:
        """The options, with codebooks learned alone.

        Raises:
            InputError: centroids are to be learned alone.
        """
        if config.learn is Learn.IVF:
            raise InputError(f"learn: expected 'pq': an {type(self.core).__name__} has no centroids; got 'ivf'")
        return replace(config, learn=Learn.PQ, assignment=Assignment.FIXED)
