"""What a vector store holds, in the terms of this package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data.formats import is_file, parted
from faiss_distill.data.vectors import Vectors, open_vectors
from faiss_distill.errors import InputError
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, Int64

TEXTS = 256
"""Texts that a store is given to embed at a time."""
READ = "such as open('queries.txt').read().splitlines()"
"""What makes a list of the lines of a file."""

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

        Texts are embedded when the first of these vectors is read, once everything has been checked that can be
        without them.

        Raises:
            InputError: the store has neither vectors nor texts.
        """
        if self.embeddings is not None:
            return self.embeddings
        if self.texts is None or self.embed_documents is None:
            wanted = "a store that keeps vectors, or texts and what embeds them"
            raise InputError("embeddings", wanted, f"one of {self.library} that keeps neither", self.lacks)
        return Embedded(self.texts, self.embed_documents, "embeddings", self.index.d, self.progress)

    def queries(self, queries: Any, name: str) -> Vectors | None:
        """Queries as the index sees them, of vectors, texts or a file; None if there are none.

        Raises:
            InputError: they are texts that the store can't embed, or of another dimension.
        """
        if queries is None:
            return None
        embed = self.embed_queries
        texts = texts_of(queries, name, f"a list of texts, {READ}" if embed is not None else "")
        if texts is not None:
            if embed is None:
                raise InputError(name, "vectors, as this store embeds no texts", "texts")
            queries = Embedded(texts, embed, name, self.index.d, self.progress)[:]
        opened = open_vectors(queries, name)
        if opened.d != self.index.d:  # told before the documents are embedded again
            raise InputError(name, f"dimension {self.index.d} as the index has", str(opened.d))
        return opened.normalized() if self.normalizes else opened


class Embedded:
    """What a store makes of texts, computed when the first row is asked for, in a temporary file.

    Args:
        texts: of the rows.
        embed: what makes vectors of some of them.
        name: what to call these in errors.
        d: their dimension.
        progress: whether to show a bar.

    Attributes:
        shape: ``(n, d)``.
        dtype: float32.
        takes_rows: it can be indexed with rows in any order.
    """

    takes_rows = True
    dtype = np.dtype(np.float32)

    def __init__(self, texts: Sequence[str], embed: Embed, name: str, d: int, progress: bool) -> None:
        """Embed nothing yet."""
        self.shape = (len(texts), d)
        self._texts, self._embed, self._name, self._progress = texts, embed, name, progress

    def __getitem__(self, rows: Any) -> Float32:
        found: Float32 = self._all[rows]
        return found

    @cached_property
    def _all(self) -> Float32:
        n, d = self.shape
        if n == 0:
            return np.empty((0, d), np.float32)
        with tempfile.TemporaryFile() as file:  # which lives for as long as it is mapped
            out = np.memmap(file, np.float32, "w+", shape=(n, d))
        with progress_bar(n, f"embed {self._name}", "texts", self._progress) as bar:
            for start in range(0, n, TEXTS):
                some = list(self._texts[start : start + TEXTS])
                block = np.asarray(self._embed(some), dtype=np.float32)
                if block.ndim != 2 or len(block) != len(some):
                    expected = f"an embedding of each text, ({len(some)}, {d})"
                    raise InputError(self._name, expected, f"shape {block.shape}")
                if block.shape[1] != d:
                    expected, got = f"embeddings of dimension {d}, as the index has", str(block.shape[1])
                    raise InputError(self._name, expected, got, "is this the model that the store was built with?")
                out[start : start + len(some)] = block
                bar.update(len(some))
        return out


def texts_of(given: Any, name: str, wanted: str = "") -> list[str] | None:
    """Texts that were passed in a list, an array or a column of pandas; None if it is something else, such as files.

    Args:
        given: anything.
        name: what to call it in errors.
        wanted: what to pass, if texts are: then a text that is no file is refused.

    Raises:
        InputError: it is a single text, or something else is among the texts.
    """
    if isinstance(given, str | Path):
        if wanted and not parted(Path(given).expanduser())[0].exists() and not is_file(Path(given)):
            raise InputError(name, wanted, repr(str(given)))
        if wanted and Path(given).suffix.lower() in (".txt", ".tsv", ".csv", ".jsonl"):
            raise InputError(name, wanted, f"the file {str(given)!r}")
        return None
    items = given
    if isinstance(given, Sequence) and len(given) and isinstance(given[0], str):  # a column of a dataset, say
        items = list(given)
    if hasattr(given, "tolist") and str(getattr(given, "dtype", "")).startswith(("object", "str", "<U")):
        items = given.tolist()
    if not isinstance(items, list | tuple) or not any(isinstance(item, str) for item in items):
        return None
    if any(isinstance(item, str) and is_file(Path(item)) for item in items):
        return None
    for row, item in enumerate(items):
        if not isinstance(item, str):
            raise InputError(name, "texts alone", f"{type(item).__name__} in row {row}", "drop it")
    return [str(item) for item in items]
