"""LlamaIndex: a ``VectorStoreIndex`` over a ``FaissVectorStore`` or ``FaissMapVectorStore``."""

from __future__ import annotations

from typing import Any

import numpy as np

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source

TRAP = (
    "load the index with the model that it was built with; if nodes were deleted, an IVF index in the store "
    "gives others the wrong ids, so that searches return wrong nodes: build the index anew"
)


def source(store: Any) -> Source:
    """The index; of a ``VectorStoreIndex`` also the texts of its nodes, which its model embeds again.

    Raises:
        InputError: its vector store is another.
    """
    if hasattr(store, "_faiss_index"):
        return Source(
            "LlamaIndex", "store.client", store.client, lacks="pass the VectorStoreIndex, which has the nodes"
        )
    inner = store.vector_store
    if not hasattr(inner, "_faiss_index"):
        raise InputError("index", "a VectorStoreIndex over a FaissVectorStore", f"one over {type(inner).__name__}")
    from llama_index.core.schema import MetadataMode

    known = getattr(inner, "_faiss_id_to_node_id_map", None)
    if known is None:
        known = {int(row): node for row, node in store.index_struct.nodes_dict.items()}
    ids = sorted(known)
    nodes = store.docstore.get_nodes([known[i] for i in ids])
    model = store._embed_model
    return Source(
        "LlamaIndex",
        "index.vector_store.client",
        inner.client,
        texts=[node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes],
        ids=np.array(ids, dtype=np.int64),
        embed_queries=lambda texts: [model.get_query_embedding(text) for text in texts],
        embed_documents=model.get_text_embedding_batch,
        trap=TRAP,
    )
