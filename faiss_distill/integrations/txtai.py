"""txtai: an ``Embeddings`` database with the faiss backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source

STORED = "SELECT indexid, text FROM txtai WHERE text IS NOT NULL ORDER BY indexid"


def source(store: Any) -> Source:
    """The index, and the texts of its database, which its model embeds again, with their instruction for data.

    Raises:
        InputError: its backend is another.
    """
    ann = store.ann
    if type(ann).__name__ != "Faiss" or ann.qbits:
        got = "none" if ann is None else type(ann).__name__
        got += " of binary codes" if getattr(ann, "qbits", None) else ""
        raise InputError("index", "an Embeddings with the faiss backend", f"one with {got}")
    found = store.database.search(STORED, limit=store.count() + 1) if store.database is not None else []
    return Source(
        "txtai",
        "embeddings.ann.backend",
        ann.backend,
        texts=[row["text"] for row in found] if found else None,
        ids=np.array([row["indexid"] for row in found], dtype=np.int64) if found else None,
        normalizes=store.reducer is None,
        nprobe=ann.nprobe() if hasattr(ann.backend, "nprobe") else None,
        embed_queries=lambda texts: store.batchtransform(texts, "query"),
        embed_documents=lambda texts: store.batchtransform(texts, "data"),
        trap="load the database with the model and the instructions that it was built with",
        lacks="build it with content=True to have it keep texts, or pass the vectors as embeddings=",
    )
