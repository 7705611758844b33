"""Vector stores of other libraries, told by the names of their classes, so that none is imported to look for it.

A new one is a file beside this one, with a function ``source`` from the store to a
:class:`~faiss_distill.integrations.source.Source`, and a row of :data:`STORES`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from faiss_distill.data.parts import by_their_names
from faiss_distill.errors import BEHIND, InputError, MismatchError
from faiss_distill.integrations.source import Source, texts_of

logger = logging.getLogger(__name__)

ORDER = (
    "do ids and embeddings have the same order? Parts of a folder are read in the order of their numbers, 2 before 10; "
    "if the index was filled in that of their names, as autofaiss does, or ids were, pass sorted(glob('FOLDER/*'))"
)
"""What may be wrong with the embeddings in a folder."""
STORES = {
    ("datasets", "Dataset"): "huggingface_datasets",
    ("dspy", "Embeddings"): "dspy",
    ("haystack_integrations", "FAISSDocumentStore"): "haystack",
    ("langchain_community", "FAISS"): "langchain",
    ("llama_index", "FaissVectorStore"): "llama_index",
    ("llama_index", "VectorStoreIndex"): "llama_index",
    ("txtai", "Embeddings"): "txtai",
    ("vicinity", "Vicinity"): "vicinity",
}
"""Package and class of each store, and the file here that opens it."""


def source_of(store: Any, column: str | None = None) -> Source | None:
    """What a vector store holds; None if it is none of the :data:`STORES`.

    Args:
        store: anything.
        column: of a dataset: the one whose index is meant.

    Raises:
        InputError: the store has no faiss index, or several; or there is a column, but no dataset.
    """
    bases = [(base.__module__.partition(".")[0], base.__name__) for base in type(store).__mro__]
    module = next((STORES[base] for base in bases if base in STORES), None)
    if column is not None and module != "huggingface_datasets":
        raise InputError(
            "column",
            "none, but for a dataset of Hugging Face as index",
            repr(column),
            "a column of a file follows its path: 'corpus/:vector'",
        )
    if module is None:
        return None
    opened: Callable[..., Source] = import_module(f"faiss_distill.integrations.{module}").source
    return opened(store) if column is None else opened(store, column)


@dataclass(frozen=True)
class Passed:
    """What was passed to tune or measure, with what a store holds in its place.

    Attributes:
        index: a faiss index, or its path.
        embeddings: the :class:`Source` if there is a store, or what was passed.
        queries: as the index sees them.
        validation_queries: as the index sees them.
        ids: as passed; None if the store knows them.
        store: the store, or None.
        trap: what may have gone wrong if the embeddings are not those behind the index, a sentence.
    """

    index: Any
    embeddings: Any
    queries: Any
    validation_queries: Any
    ids: Any
    store: Source | None = None
    trap: str = ""

    @property
    def nprobe(self) -> int | None:
        """The lists that the store searches, if it sets that itself."""
        return None if self.store is None else self.store.nprobe

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within it, embeddings that are not those behind the index are told with what may have gone wrong."""
        try:
            yield
        except MismatchError as error:
            if not self.trap:
                raise
            if self.store is None:  # the order of parts says nothing about their number
                if error.expected != BEHIND:
                    raise
                raise replace(error, hint=self.trap) from error
            raise replace(error, got=error.got.partition("; ")[0], hint=self.trap) from error


def opened(
    index: Any,
    column: str | None,
    embeddings: Any,
    queries: Any,
    ids: Any,
    validation_queries: Any = None,
    progress: bool = True,
) -> Passed:
    """What was passed; if ``index`` is a vector store, with its index, embeddings and ids.

    Embeddings that are passed along with a store are taken in place of its own, and need the ``ids``, if any.

    Raises:
        InputError: see :func:`source_of`; or ids without embeddings; or queries that the store can't take.
    """
    store = source_of(index, column)
    trap = ORDER if by_their_names(embeddings) else ""
    if store is None:
        return Passed(index, embeddings, queries, validation_queries, ids, trap=trap)
    if embeddings is not None and texts_of(embeddings, "embeddings") is not None:
        raise InputError("embeddings", "vectors, or none to take the store's", "texts", "pass queries as queries=")
    if embeddings is not None:
        store = replace(store, embeddings=embeddings, ids=None, texts=None, trap=trap, passed=True)
    elif ids is not None:
        raise InputError("ids", "none, as the store knows them, or together with embeddings", "some")
    store = replace(store, progress=progress)
    logger.info("%s", store.found)
    asked = store.queries(queries, "queries"), store.queries(validation_queries, "validation_queries")
    return Passed(store.index, store, *asked, ids, store, store.trap)
