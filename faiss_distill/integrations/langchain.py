"""LangChain: the ``FAISS`` vector store of ``langchain-community``."""

from __future__ import annotations

from typing import Any

from faiss_distill.errors import InputError
from faiss_distill.integrations.source import Source


def source(store: Any) -> Source:
    """The index, and the documents' texts, which its embedding function embeds again.

    Raises:
        InputError: its docstore lacks a document of the index.
    """
    place = store.index_to_docstore_id
    documents = [store.docstore.search(place[row]) for row in sorted(place)]
    return Source(
        "LangChain",
        "store.index",
        store.index,
        texts=[_text(document) for document in documents],
        normalizes=bool(store._normalize_L2),
        embed_queries=lambda texts: [store._embed_query(text) for text in texts],
        embed_documents=store._embed_documents,
        trap="load the store as it was built, with the same model and normalize_L2; if documents were deleted, "
        "LangChain has moved the others up, while an IVF index keeps its ids, so that searches return wrong documents: "
        "build the store anew",
    )


def _text(document: Any) -> str:
    """What was embedded of a document; in place of one that it lacks, a docstore returns a message."""
    if not hasattr(document, "page_content"):
        raise InputError("index", "a store with all its documents", str(document))
    text: str = document.page_content
    return text
