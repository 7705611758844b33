"""``IndexPQ``: PQ codes without inverted lists."""

from __future__ import annotations

from dataclasses import replace

import faiss

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.index.families.codes import CodesAdapter
from faiss_distill.index.parts.codebooks import Codebooks, ProductCodebooks


class PQAdapter(CodesAdapter):
    """One ``IndexPQ``, or its kin in a subclass."""

    traits = replace(CodesAdapter.traits, codebooks="PQ codebooks")

    def _check(self) -> None:
        if self.core.search_type != faiss.IndexPQ.ST_PQ:  # type: ignore[attr-defined]
            raise UnsupportedIndexError(
                "index",
                "search_type ST_PQ",
                f"{self.core.search_type}: other searches compare codes bit by bit, and learned codebooks lose "
                "that order",
                "set search_type = faiss.IndexPQ.ST_PQ to tune it",
            )
        super()._check()

    def _open_codebooks(self) -> Codebooks:
        return ProductCodebooks(self.core.pq)
