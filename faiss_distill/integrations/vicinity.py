"""vicinity: a ``Vicinity`` with the faiss backend."""

from __future__ import annotations

from typing import Any

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source


def source(store: Any) -> Source:
    """The index, and the vectors if it was made with ``store_vectors=True``; unit vectors for its cosine metric.

    Raises:
        InputError: its backend is another.
    """
    backend = store.backend
    if not hasattr(backend, "index") or str(backend.backend_type.value) != "faiss":
        raise InputError("index", "a Vicinity with the faiss backend", f"one with {type(backend).__name__}")
    kept = store.vector_store
    return Source(
        "vicinity",
        "vicinity.backend.index",
        backend.index,
        embeddings=None if kept is None else kept.get_by_index(slice(None)),
        normalizes=str(store.metric.value) == "cosine",
        lacks="make it with store_vectors=True, or pass the vectors as embeddings=",
    )
