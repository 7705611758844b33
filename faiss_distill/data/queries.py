"""Queries of one purpose, as a user passes them and as they are used; copies among them are told."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from faiss_distill.data.likeness import Likeness
from faiss_distill.data.neighbours import Neighbours
from faiss_distill.state import Float32, Int64


@dataclass(frozen=True)
class Queries:
    """Queries of one purpose, in memory.

    Attributes:
        vectors: as the outer index takes them, float32 ``(nq, d_in)``.
        rows: for a document used as a query, its row of the corpus, -1 for a real query, int64 ``(nq,)``; None if all
            are real.
        relevant: ids of the relevant documents, -1 as padding, int64 ``(nq, r)``, or None.
        inputs: what the query encoder takes, one entry a query ``(nq, ...)``, or None without one.
        neighbours: what somebody else found for each of them, or None.
        passed: the row of each in the array that was passed, int64 ``(nq,)``; None for documents used as queries.
    """

    vectors: Float32
    rows: Int64 | None = None
    relevant: Int64 | None = None
    inputs: NDArray[Any] | None = None
    neighbours: Neighbours | None = None
    passed: Int64 | None = None

    @property
    def asked(self) -> Float32:
        """What is really asked: the vectors of the real ones, or of all if all are documents."""
        real = self.rows is not None and (self.rows < 0)
        return self.vectors[real] if np.any(real) else self.vectors

    @property
    def real(self) -> Float32 | None:
        """The vectors of the real ones; None if there are none."""
        if self.rows is None:
            return self.vectors
        real = self.rows < 0
        return self.vectors[real] if real.any() else None

    def take(self, which: slice | Int64) -> Queries:
        """Some of them."""
        rows, relevant, given, passed = (
            None if a is None else a[which] for a in (self.rows, self.relevant, self.inputs, self.passed)
        )
        neighbours = None if self.neighbours is None else self.neighbours.take(which)
        return Queries(self.vectors[which], rows, relevant, given, neighbours, passed)

    @property
    def origin(self) -> Int64:
        """The row of each in the array that it comes from, int64 ``(nq,)``: queries, or the embeddings."""
        found = self.rows if self.passed is None else self.passed
        assert found is not None
        return found

    def distinct(self, likeness: Likeness, but: Queries | None = None) -> Queries:
        """The first of each that occurs more than once, with the labels of all, without those that are in ``but``.

        A log repeats its queries. One that is trained on must not judge, and one that judges must count once. Queries
        are the same if their vectors are alike, or if what the query encoder takes is equal.
        """
        known = 0 if but is None else len(but.vectors)
        parts = [self] if but is None else [but, self]
        entries = None
        if self.inputs is not None:
            entries = [_content(x) for part in parts if part.inputs is not None for x in part.inputs]
        first = likeness.first(np.concatenate([part.vectors for part in parts]), known, entries)[known:] - known
        rows = np.flatnonzero(first == np.arange(len(first)))
        out = self.take(rows)
        if self.relevant is None or len(rows) == len(first):
            return out
        return replace(out, relevant=_merged(self.relevant[first >= 0], np.searchsorted(rows, first[first >= 0])))


def _merged(relevant: Int64, groups: Int64) -> Int64:
    """The labels of each group, distinct and padded with -1; ``groups (nq,)`` counts from 0 without gaps."""
    pairs = np.stack([np.repeat(groups, relevant.shape[1]), relevant.ravel()], axis=1)
    group, label = np.unique(pairs[pairs[:, 1] != -1], axis=0).T
    counts = np.bincount(group, minlength=groups.max(initial=-1) + 1)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.full((len(counts), max(1, counts.max(initial=0))), -1, dtype=np.int64)
    out[group, place] = label
    return out


def _content(entry: Any) -> Hashable:
    """What tells the input of a query encoder from others; ``repr`` shortens long tensors."""
    if isinstance(entry, torch.Tensor):
        entry = entry.numpy(force=True)
    if isinstance(entry, np.ndarray):
        return entry.tobytes()
    if isinstance(entry, dict):
        return tuple((key, _content(value)) for key, value in entry.items())
    return repr(entry)


@dataclass(frozen=True)
class Given:
    """Queries of one purpose, as a user passes them; any may be None."""

    queries: Any
    relevant: Any
    inputs: Any
    neighbours: Any = None
