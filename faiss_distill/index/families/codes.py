"""What index families without inverted lists have in common: codebooks and codes, read and written back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.columns import column, numbers
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.adapter import OneListAdapter
from faiss_distill.index.cost import Cost
from faiss_distill.index.parts.codebooks import Codebooks
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.parts.write_back import CodesWriteBack
from faiss_distill.index.traits import Traits
from faiss_distill.state import Float32, IndexState, Packed


class CodesAdapter(OneListAdapter):
    """One index of codes alone."""

    codebooks: Codebooks
    traits = Traits(
        fixed="an index without lists has no centroids",
        codebooks="codebooks",
        codes="codes",
        lists=False,
        takes_a_sample=False,
        lists_in_a_file=False,
    )

    def _check(self) -> None:
        self.traits = replace(self.traits, fixed=f"an {type(self.core).__name__} has no centroids")
        if not self.core.codes.is_owned:
            raise UnsupportedIndexError(
                "index", "codes in memory", "memory-mapped ones", "read the index without IO_FLAG_MMAP_IFC"
            )
        self.codebooks = self._open_codebooks()
        check_size("bytes of codes", self.core.codes.size(), self.core.ntotal * self.core.code_size)

    @property
    def copies(self) -> int:
        """Its codes as they were, and as they become."""
        return 2 * self.code_size

    @abstractmethod
    def _open_codebooks(self) -> Codebooks:
        """The index's codebooks."""

    def _read_codes(self) -> Packed:
        """Bit-packed codes, uint8 ``(n, code_size)``."""
        return faiss.vector_to_array(self.core.codes).reshape(self.core.ntotal, self.core.code_size)

    def _hold(self, packed: Packed) -> Any:
        """An index off to the side with these codes, uint8 ``(n, code_size)``."""
        holder: Any = faiss.IndexPQ(packed.shape[1], packed.shape[1], 8)  # of one byte a dimension
        faiss.copy_array_to_vector(packed.ravel(), holder.codes)
        return holder

    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """All codes, for each query."""
        return Cost(float(len(queries) * self.core.ntotal))

    def extract(self) -> IndexState:
        """Copy the index's codebooks and codes into plain arrays."""
        n = self.core.ntotal
        return IndexState(
            metric=self.metric,
            coarse_metric=self.metric,
            by_residual=False,
            centroids=np.zeros((1, self.core.d), dtype=np.float32),
            codebooks=self.codebooks.read(),
            assignment=column((n,), np.int64),
            codes=self.codebooks.unpack(self._read_codes()),
            ids=numbers(n),
        )

    def quantizer_with(self, centroids: Float32, router: Float32 | None = None) -> tuple[Any, Float32]:
        """None: there is no quantizer; and the centroid."""
        return None, centroids

    def _transaction(
        self, state: IndexState, quantizer: Any, words: Any, lists: bool, file: Path | None
    ) -> Transaction:
        if lists and state.n != self.core.ntotal:  # a search would read past the codes
            raise InputError("codes", f"those of all {self.core.ntotal} vectors", str(state.n))
        holder = self._hold(self.codebooks.pack(words, state)) if lists else None
        return Transaction([CodesWriteBack(self.core, self.codebooks, words, holder)])
