"""Indexes that are passed as files or in vector stores, and indexes that are passed for the vectors in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.data.formats import is_index
from faiss_distill.data.ids import as_ids
from faiss_distill.data.vectors import Vectors, open_vectors
from faiss_distill.errors import InputError
from faiss_distill.index.files import read_index
from faiss_distill.index.parts.held import vectors_held
from faiss_distill.integrations.source import Source
from faiss_distill.integrations.stores import source_of
from faiss_distill.state import Int64


def as_index(index: Any) -> Any:
    """An index, or the one in a file whose path is passed, or in a vector store.

    Raises:
        InputError: there is no such file, it is not a complete index, or the store has none.
    """
    if isinstance(index, str | Path):
        return read_index(Path(index).expanduser())
    store = None if isinstance(index, faiss.Index) else source_of(index)
    return index if store is None else store.index


def open_embeddings(embeddings: Any, ids: Any) -> tuple[Vectors, Int64 | None]:
    """What was passed as embeddings, and their ids, int64 ``(n,)``, or None if they are the rows' numbers.

    Args:
        embeddings: see :func:`faiss_distill.data.vectors.open_vectors`; or a flat index, or one of a scalar quantizer
            of 8 bits or more, perhaps in an ``IndexIDMap``, whose ids are then taken; or the path of a file of one; or
            what a vector store holds.
        ids: the id of each, or None.

    Raises:
        InputError: they are no vectors, or an index that does not hold them; or ids are passed along with one that has
            its own.
    """
    if isinstance(embeddings, Source):
        vectors, ids = open_embeddings(embeddings.vectors, embeddings.ids if ids is None else ids)
        return (vectors.normalized() if embeddings.normalizes else vectors), ids
    ids = None if ids is None else as_ids(ids, "ids")
    if isinstance(embeddings, str | Path) and is_index(Path(embeddings)):
        try:
            embeddings = as_index(embeddings)
        except InputError as error:
            raise replace(error, argument="embeddings") from error
    if not isinstance(embeddings, faiss.Index):
        return open_vectors(embeddings, "embeddings"), ids
    inner: Any = faiss.downcast_index(embeddings)
    if isinstance(inner, faiss.IndexIDMap):
        if ids is not None:
            raise InputError("ids", "none, as the index of the embeddings has its own", "some")
        ids = np.asarray(faiss.vector_to_array(inner.id_map), dtype=np.int64)
        inner = faiss.downcast_index(inner.index)
    held: Any = vectors_held(inner)
    if held is None:
        expected = "vectors, or an index that holds them: flat, or of a scalar quantizer of 8 bits or more"
        got = f"an empty {type(inner).__name__}" if inner.ntotal == 0 else f"an {type(inner).__name__}"
        raise InputError("embeddings", expected, got)
    held.owner = embeddings  # which frees them when it goes
    return Vectors(held, "embeddings"), ids
