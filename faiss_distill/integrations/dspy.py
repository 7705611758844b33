"""DSPy: the retriever ``Embeddings``, which reranks ten times as many passages as it returns."""

from __future__ import annotations

from typing import Any

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source


def source(store: Any) -> Source:
    """The index, and the embeddings, which the retriever keeps to rerank by.

    Raises:
        InputError: it has no index, as it searches few passages by brute force.
    """
    if store.index is None:
        hint = "it searches exactly below its brute_force_threshold: there is nothing to tune"
        raise InputError("index", "a retriever with a faiss index", "one without", hint)
    return Source(
        "DSPy",
        "retriever.index",
        store.index,
        embeddings=store.corpus_embeddings,
        normalizes=bool(store.normalize),
        embed_queries=store.embedder,
    )
