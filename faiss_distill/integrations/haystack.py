"""Haystack: the ``FAISSDocumentStore`` of ``faiss-haystack``."""

from __future__ import annotations

from typing import Any

import numpy as np

from faiss_distill.integrations.source import Source


def source(store: Any) -> Source:
    """The index, and the embeddings of the documents that have one, with the ids that the store gave them."""
    ids = sorted(store.id_map)
    vectors = [store.documents[store.id_map[i]].embedding for i in ids]
    return Source(
        "Haystack",
        "store.index",
        store.index,
        embeddings=np.array(vectors, dtype=np.float32).reshape(len(ids), -1) if ids else None,
        ids=np.array(ids, dtype=np.int64),
        trap="if documents were deleted or overwritten, an IVF index in the store gives others the wrong ids, so "
        "that searches return wrong documents: write all documents into a new store",
    )
