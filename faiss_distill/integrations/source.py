"""What a vector store holds, in the terms of this package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data.formats import is_file
from faiss_distill.data.vectors import Vectors, open_vectors
from faiss_distill.errors import InputError
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, Int64

TEXTS = 256
"""Texts that a store is given to embed at a time."""

Embed = Callable[[list[str]], Any]
"""From texts to vectors, one a row."""


@dataclass(frozen=True)
class Source:
    """A store's faiss index, and what is needed to tune it.

    Attributes:
        library: the store, as its users call it.
        place: where in the store the index is, as an expression of its users.
        index: the faiss index that it searches.
        embeddings: the vectors that it keeps, a matrix as :func:`~faiss_distill.data.vectors.open_vectors` takes it;
            None if it keeps none.
        texts: the texts that it keeps, to be embedded again where it keeps no vectors; None if it keeps none.
        ids: the index's id of each of these, int64 ``(n,)``; None if they are the rows' numbers.
        normalizes: whether the store divides embeddings and queries by their length before the index sees them.
        nprobe: the lists that it searches, where it sets that itself; None where the index's own counts.
        embed_queries: from texts to queries, as the store's own search embeds them; None if it can't.
        embed_documents: from texts to embeddings, or None.
        trap: what the store may have done if embeddings are not those behind the index, a sentence.
        lacks: what a user can do if there are no embeddings, a sentence.
        passed: whether embeddings are not the store's own, but passed along with it.
        progress: show progress bars, when the standard error is a terminal.
    """

    library: str
    place: str
    index: Any
    embeddings: Any = None
    texts: Sequence[str] | None = None
    ids: Int64 | None = None
    normalizes: bool = False
    nprobe: int | None = None
    embed_queries: Embed | None = None
    embed_documents: Embed | None = None
    trap: str = ""
    lacks: str = "pass the vectors that were added to it, in that order, as embeddings="
    passed: bool = False
    progress: bool = True

    @property
    def found(self) -> str:
        """Where index and embeddings came from, for the report."""
        held = "embeddings as passed" if self.passed else "its own embeddings"
        if self.embeddings is None:
            held = f"its {len(self.texts or ())} texts, embedded again"
        return f"{self.library}, {self.place}; {held}" + (", divided by their length" if self.normalizes else "")

    @cached_property
    def vectors(self) -> Any:
        """What was embedded of the documents, ``(n, d)``, before the store divides it by its length.

        Raises:
            InputError: the store has neither vectors nor texts, or a text could not be embedded.
        """
        if self.embeddings is not None:
            return self.embeddings
        if self.texts is None or self.embed_documents is None:
            wanted = "a store that keeps vectors, or texts and what embeds them"
            raise InputError("embeddings", wanted, f"one of {self.library} that keeps neither", self.lacks)
        return embedded(self.texts, self.embed_documents, "embeddings", self.progress)

    def queries(self, queries: Any, name: str) -> Vectors | None:
        """Queries as the index sees them, of vectors, texts or a file; None if there are none.

        Raises:
            InputError: they are texts that the store can't embed, or of another dimension.
        """
        if queries is None:
            return None
        if are_texts(queries):
            if self.embed_queries is None:
                raise InputError(name, "vectors, as this store embeds no texts", "texts")
            queries = embedded(queries, self.embed_queries, name, self.progress)
        opened = open_vectors(queries, name)
        if opened.d != self.index.d:  # told before the documents are embedded again
            raise InputError(name, f"dimension {self.index.d} as the index has", str(opened.d))
        return opened.normalized() if self.normalizes else opened


def are_texts(queries: Any) -> bool:
    """Whether they are texts, and not the paths of files."""
    texts = isinstance(queries, list | tuple | np.ndarray) and len(queries) > 0
    return texts and all(isinstance(item, str) for item in queries) and not any(is_file(Path(item)) for item in queries)


def embedded(texts: Sequence[str], embed: Embed, name: str, progress: bool) -> Float32:
    """What a store makes of texts, some at a time, float32 ``(n, d)`` in a temporary file.

    Raises:
        InputError: it makes something else of them.
    """
    out: Float32 | None = None
    with progress_bar(len(texts), f"embed {name}", "texts", progress) as bar:
        for start in range(0, len(texts), TEXTS):
            some = [str(text) for text in texts[start : start + TEXTS]]
            block = np.asarray(embed(some), dtype=np.float32)
            if block.ndim != 2 or len(block) != len(some) or (out is not None and block.shape[1] != out.shape[1]):
                d = "d" if out is None else out.shape[1]
                raise InputError(name, f"an embedding of each text, ({len(some)}, {d})", f"shape {block.shape}")
            if out is None:
                with tempfile.TemporaryFile() as file:  # which lives for as long as it is mapped
                    out = np.memmap(file, np.float32, "w+", shape=(len(texts), block.shape[1]))
            out[start : start + len(some)] = block
            bar.update(len(some))
    if out is None:
        raise InputError(name, "texts to embed", "none")
    return out
