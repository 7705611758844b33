"""What a user passes, checked and lined up with the index, before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faiss_distill.adapters import IVFPQAdapter
from faiss_distill.config import DistillConfig
from faiss_distill.errors import InputError
from faiss_distill.readers import Vectors, open_vectors
from faiss_distill.state import Float32, Int64, IVFPQState

SAMPLE = 1_000
"""Stored vectors compared with the embeddings passed."""
MIN_QUERIES = 60
"""Fewer can't be split into a training and a validation set that decide anything."""
MIN_VALIDATION, MAX_VALIDATION = 200, 5_000
"""Held-out queries, when the split is ours (and at most a third of all): fewer decide little, more only cost time."""
STAND_INS = 40_000
"""Documents that stand in for queries, validation included, at most."""


@dataclass(frozen=True)
class Queries:
    """Queries of one purpose, in memory.

    Attributes:
        vectors: as the outer index takes them, float32 ``(nq, d_in)``.
        rows: where documents stand in, the row of the corpus that each is, int64 ``(nq,)``; else None.
        relevant: ids of the relevant documents, -1 as padding, int64 ``(nq, r)``, or None.
    """

    vectors: Float32
    rows: Int64 | None = None
    relevant: Int64 | None = None

    def take(self, which: slice | Int64) -> Queries:
        """Some of them."""
        rows, relevant = (None if a is None else a[which] for a in (self.rows, self.relevant))
        return Queries(self.vectors[which], rows, relevant)

    def distinct(self, but: Queries | None = None) -> Queries:
        """The first of each that occurs more than once, without those that are in ``but``.

        A log repeats its queries. One that is trained on must not judge, and one that judges must count once.
        """
        seen = set() if but is None else {vector.tobytes() for vector in but.vectors}
        kept = []
        for i, vector in enumerate(self.vectors):
            key = vector.tobytes()
            if key not in seen:
                seen.add(key)
                kept.append(i)
        return self.take(np.array(kept, dtype=np.int64))


def open_corpus(adapter: IVFPQAdapter, embeddings: Any, labels: Int64, ids: Any) -> Vectors:
    """The embeddings in the order of ``labels``.

    Args:
        adapter: the index.
        embeddings: see :func:`faiss_distill.readers.open_vectors`.
        labels: outer ids of the stored vectors, distinct, int64 ``(n,)``.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.

    Raises:
        InputError: wrong dimension, or embeddings and stored ids are not one to one.
    """
    corpus = open_vectors(embeddings, "embeddings")
    if corpus.d != adapter.index.d:
        raise InputError(f"embeddings: expected dimension {adapter.index.d} as the index has, got {corpus.d}")
    rows = _rows_of(labels, corpus.n, ids)
    return corpus if np.array_equal(rows, np.arange(corpus.n)) else corpus.select(rows)


def _rows_of(labels: Int64, n_embeddings: int, ids: Any) -> Int64:
    """Row of the embeddings for each of ``labels``."""
    n = len(labels)
    if ids is None:
        if labels.min() < 0 or labels.max() >= n_embeddings:
            raise InputError(
                f"embeddings: expected row i to belong to id i for ids {labels.min()}..{labels.max()}, got "
                f"{n_embeddings} rows; pass ids= with the id of each row"
            )
        if n_embeddings > n and labels.max() == n - 1:  # distinct, so exactly 0..n-1: nothing was ever removed
            raise InputError(
                f"embeddings: expected {n} rows, one for each of the ids 0..{n - 1}, got {n_embeddings}; if the last "
                f"ones were removed from the index, pass embeddings[:{n}]"
            )
        return labels
    ids = _integers(ids, "ids")
    if ids.shape != (n_embeddings,) or ids.dtype.kind not in "iu":
        raise InputError(f"ids: expected {n_embeddings} integers, one a row, got {ids.dtype} of shape {ids.shape}")
    ids = ids.astype(np.int64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(doubles):
        raise InputError(f"ids: expected distinct ids, got {len(doubles)} repeated ({_examples(doubles)})")
    missing = np.setdiff1d(labels, ordered)
    if len(missing):
        raise InputError(f"ids: expected the ids of all {n} stored vectors, got none of {_examples(missing)}")
    if n_embeddings > n:
        extra = np.setdiff1d(ordered, labels)
        raise InputError(f"ids: expected only ids that the index holds, got {len(extra)} others ({_examples(extra)})")
    return order[np.searchsorted(ordered, labels)]


def _integers(values: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: expected an array of integers, got rows of unequal length") from error


def _examples(values: Int64) -> str:
    return ", ".join(map(str, values[:5].tolist())) + (", ..." if len(values) > 5 else "")


def check_corpus(adapter: IVFPQAdapter, state: IVFPQState, corpus: Vectors, rng: np.random.Generator) -> None:
    """Refuse embeddings that are plainly not the ones behind the index.

    Regresses a sample of embeddings on the vectors that their codes decode to, both centred. Codes that belong to
    them give a slope near 1, whatever their length, since a codeword is about the mean of what it stands for; other
    vectors or another order give 0, and another scale gives that scale.

    Raises:
        InputError: the slope is below one half or above 2.
    """
    rows = np.sort(rng.choice(state.n, min(state.n, SAMPLE), replace=False)).astype(np.int64)
    vectors, decoded = adapter.transform(corpus.take(rows)), state.reconstruct(rows)
    vectors, decoded = vectors - vectors.mean(axis=0), decoded - decoded.mean(axis=0)
    spread = float(np.square(decoded).sum())
    if spread < 1e-6 * float(np.square(state.reconstruct(rows)).sum()):
        return  # all are the same: there is nothing to tell apart
    slope = float((vectors * decoded).sum()) / spread
    if not 0.5 < slope < 2:
        raise InputError(
            f"embeddings: expected the vectors behind the index, got ones that follow its stored codes with slope "
            f"{slope:.2f} (1 if they belong, 0 if they are others or in another order, else another scale); check the "
            f"file, its order, its scale and ids="
        )


def open_queries(adapter: IVFPQAdapter, queries: Any, name: str, block_rows: int) -> Vectors:
    """Queries, checked in full.

    Raises:
        InputError: wrong dimension, none at all, or not finite.
    """
    vectors = open_vectors(queries, name)
    if vectors.d != adapter.index.d:
        raise InputError(f"{name}: expected dimension {adapter.index.d} as the index has, got {vectors.d}")
    if vectors.n == 0:
        raise InputError(f"{name}: expected at least one query, got none; leave it out to use documents instead")
    vectors.check_finite(block_rows)
    return vectors


def open_relevant(relevant: Any, n_queries: int, labels: Int64, name: str) -> Int64:
    """Relevant ids as int64 ``(n_queries, r)``, -1 as padding.

    Args:
        relevant: integers ``(n_queries,)`` or ``(n_queries, r)``, -1 where there is none.
        n_queries: rows expected.
        labels: ids that the index holds.
        name: what to call it in errors.

    Raises:
        InputError: wrong shape or dtype, or ids that the index does not hold.
    """
    out = _integers(relevant, name)
    if out.dtype.kind not in "iu" or out.ndim not in (1, 2) or len(out) != n_queries:
        raise InputError(
            f"{name}: expected integers ({n_queries},) or ({n_queries}, r), one row a query, "
            f"got {out.dtype} of shape {out.shape}"
        )
    out = np.asarray(out.reshape(n_queries, -1), dtype=np.int64)
    unknown = np.setdiff1d(out[out != -1], labels)
    if len(unknown):
        raise InputError(f"{name}: expected ids that the index holds, got {len(unknown)} others ({_examples(unknown)})")
    return out


@dataclass(frozen=True)
class Splitter:
    """Makes training and validation queries of what a user passes.

    Attributes:
        adapter: the index.
        corpus: its embeddings, in the order of ``labels``.
        labels: the ids that it holds, int64 ``(n,)``.
        config: for ``validation_fraction``, ``max_queries`` and ``block_rows``.
        rng: source of randomness.
    """

    adapter: IVFPQAdapter
    corpus: Vectors
    labels: Int64
    config: DistillConfig
    rng: np.random.Generator

    def split(
        self, queries: Any, relevant: Any, validation_queries: Any, validation_relevant: Any
    ) -> tuple[Queries, Queries]:
        """Training and validation queries; the arguments are those of :func:`faiss_distill.distill`.

        Raises:
            InputError: one of them is wrong, or lacks what it belongs to, or there are too few queries.
        """
        for name, value, needs in (
            ("relevant", relevant, queries),
            ("validation_queries", validation_queries, queries),
            ("validation_relevant", validation_relevant, validation_queries),
        ):
            if value is not None and needs is None:
                raise InputError(f"{name}: expected together with the queries it belongs to, got it without them")
        if queries is None:
            rows = self.rng.permutation(self.corpus.n)[: min(STAND_INS, self.config.max_queries)]
            return self._divide(Queries(self._documents(rows), rows).distinct(), "embeddings")
        whole = self._load(queries, relevant, "queries")
        if validation_queries is None:
            return self._divide(whole, "queries")
        held_out = self._load(validation_queries, validation_relevant, "validation_queries").distinct(but=whole)
        if len(held_out.vectors) < MIN_QUERIES // 3:
            raise InputError(
                f"validation_queries: expected at least {MIN_QUERIES // 3} distinct ones that are not in queries, "
                f"got {len(held_out.vectors)}; pass more, "
                f"or leave them out to have some held out of queries"
            )
        return whole, held_out

    def _documents(self, rows: Int64) -> Float32:
        order = np.argsort(rows)
        out = np.empty((len(rows), self.corpus.d), dtype=np.float32)
        out[order] = self.corpus.take(rows[order])  # ascending: kind to a memory-mapped file
        return out

    def _load(self, queries: Any, relevant: Any, name: str) -> Queries:
        vectors = open_queries(self.adapter, queries, name, self.config.block_rows)
        known = None
        if relevant is not None:
            known = open_relevant(
                relevant, vectors.n, self.labels, "relevant" if name == "queries" else "validation_relevant"
            )
        rows = np.sort(self.rng.permutation(vectors.n)[: self.config.max_queries])
        return Queries(vectors.take(rows), None, None if known is None else known[rows]).distinct()

    def _divide(self, whole: Queries, name: str) -> tuple[Queries, Queries]:
        n = len(whole.vectors)
        if n < MIN_QUERIES:
            raise InputError(
                f"{name}: expected at least {MIN_QUERIES} distinct ones to train on some and judge by others, got {n}; "
                f"pass more queries, or none to have documents stand in for them"
            )
        held_out = min(max(round(self.config.validation_fraction * n), MIN_VALIDATION), n // 3, MAX_VALIDATION)
        order = self.rng.permutation(n)
        return whole.take(order[held_out:]), whole.take(order[:held_out])
