"""What a user passes, checked and lined up with the index, before anything is touched."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from faiss_distill import query_encoders
from faiss_distill.adapters import Adapter
from faiss_distill.config import DistillConfig, Loss
from faiss_distill.errors import InputError
from faiss_distill.files import stored_name
from faiss_distill.readers import Vectors, open_vectors
from faiss_distill.relevance import open_relevant
from faiss_distill.state import Float32, IndexState, Int64

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
        rows: where documents stand in, the row of the corpus that each is, -1 for a real query, int64 ``(nq,)``; None
            if all are real.
        relevant: ids of the relevant documents, -1 as padding, int64 ``(nq, r)``, or None.
        inputs: what the query encoder takes, one entry a query ``(nq, ...)``, or None without one.
    """

    vectors: Float32
    rows: Int64 | None = None
    relevant: Int64 | None = None
    inputs: NDArray[Any] | None = None

    def take(self, which: slice | Int64) -> Queries:
        """Some of them."""
        rows, relevant, given = (None if a is None else a[which] for a in (self.rows, self.relevant, self.inputs))
        return Queries(self.vectors[which], rows, relevant, given)

    def distinct(self, but: Queries | None = None) -> Queries:
        """The first of each that occurs more than once, with the labels of all, without those that are in ``but``.

        A log repeats its queries. One that is trained on must not judge, and one that judges must count once. Queries
        are the same if their vectors are, or what the query encoder takes.
        """
        taken = set() if but is None else {key for i in range(len(but.vectors)) for key in but._keys(i)}
        first: dict[Hashable, int] = {}
        copies: dict[int, list[int]] = {}
        for i in range(len(self.vectors)):
            keys = self._keys(i)
            if any(key in taken for key in keys):
                continue
            known = [first[key] for key in keys if key in first]
            owner = known[0] if known else i
            for key in keys:
                first.setdefault(key, owner)
            copies.setdefault(owner, []).append(i)
        out = self.take(np.array(list(copies), dtype=np.int64))
        if self.relevant is None or len(copies) == len(self.vectors):
            return out
        labels = [np.unique(self.relevant[rows]) for rows in copies.values()]
        labels = [found[found != -1] for found in labels]
        merged = np.full((len(labels), max((len(found) for found in labels), default=1) or 1), -1, dtype=np.int64)
        for row, found in zip(merged, labels, strict=True):
            row[: len(found)] = found
        return replace(out, relevant=merged)

    def _keys(self, i: int) -> list[Hashable]:
        """What tells query ``i`` from others: its vector, and its input if there is one."""
        keys: list[Hashable] = [self.vectors[i].tobytes()]
        if self.inputs is not None:
            keys.append(("input", _content(self.inputs[i])))
        return keys


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


def open_corpus(
    adapter: Adapter, embeddings: Any, labels: Int64, ids: Any, partial: bool = False
) -> tuple[Vectors, Int64]:
    """The embeddings in the order of ``labels``.

    Args:
        adapter: the index.
        embeddings: see :func:`faiss_distill.readers.open_vectors`; None for those that the index holds itself.
        labels: outer ids of the stored vectors, distinct, int64 ``(n,)``.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        partial: whether ``ids`` may lack some of the stored vectors.

    Returns:
        The embeddings, and which of ``labels`` they belong to, ascending int64.

    Raises:
        InputError: wrong dimension, none at all, or embeddings and stored ids are not one to one.
    """
    kept: Int64 | None = None
    if embeddings is None:
        own = adapter.vectors
        if own is None:
            raise InputError(
                "embeddings: expected the vectors behind the index, got None; only an IndexRefineFlat, or an "
                "IndexRefine by a scalar quantizer of 8 bits or more, outside of any transform holds them itself"
            )
        if ids is not None:
            raise InputError("ids: expected together with embeddings, got them without")
        embeddings, ids = own
        kept = np.flatnonzero(np.isin(ids, labels))  # not those that were removed from the index inside
    corpus = open_vectors(embeddings, "embeddings")
    if kept is not None and len(kept) < corpus.n:
        corpus, ids = corpus.select(kept), ids[kept]
    if corpus.d != adapter.index.d:
        raise InputError(f"embeddings: expected dimension {adapter.index.d} as the index has, got {corpus.d}")
    held = np.arange(len(labels))
    if partial and not adapter.takes_a_sample and corpus.n < len(labels):
        raise InputError(
            f"embeddings: expected all {len(labels)} vectors, got {corpus.n}; an index without lists can't be searched "
            f"with a sample"
        )
    if partial and adapter.takes_a_sample and ids is not None:
        held = np.flatnonzero(np.isin(labels, _integers(ids, "ids")))
        if len(held) == 0:
            raise InputError("ids: expected ids that the index holds, got none that it does")
    rows = _rows_of(labels[held], corpus.n, ids)
    return corpus if np.array_equal(rows, np.arange(corpus.n)) else corpus.select(rows), held


def lists_file(adapter: Adapter, wanted: Any, frozen: bool = False) -> Path | None:
    """Where new inverted lists go: the file that is wanted, one beside that of lists on disk, or None for memory.

    Args:
        adapter: the index.
        wanted: a path, or None.
        frozen: whether codes and lists stay as they are.

    Returns:
        An absolute path, since the index stores it and may be read from another folder.

    Raises:
        InputError: it exists, or can't be made.
    """
    if frozen and not (adapter.codebooks is not None and adapter.codebooks.stores_norms):
        if wanted is None:
            return None
        raise InputError(
            f"invlists_file: expected None with encoding='frozen', whose lists stay where they are, got {str(wanted)!r}"
        )
    if wanted is None:
        own = adapter.lists_file
        if own is None:
            return None
        names = (own.with_name(f"{own.name}.tuned{i or ''}") for i in itertools.count())
        wanted = next(name for name in names if not os.path.lexists(name))
    if not isinstance(wanted, str | Path):
        raise InputError(f"invlists_file: expected a path, got {type(wanted).__name__}")
    file = Path(stored_name("invlists_file", Path(wanted)))
    try:
        file.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(
            f"invlists_file: expected a name for a new file, got {str(file)!r}: {error.strerror}"
        ) from error
    else:
        raise InputError(f"invlists_file: expected a file that does not exist yet, got {str(file)!r}")
    if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise InputError(f"invlists_file: expected a file in a folder that can be written to, got {str(file)!r}")
    adapter.put_lists_in(file)
    return file


def positions(labels: Int64, ids: Int64) -> Int64:
    """Where each of ``ids`` is in ``labels``, distinct in any order; -1 where it is not: int64, shaped as ``ids``."""
    order = np.argsort(labels)
    at = np.minimum(np.searchsorted(labels, ids, sorter=order), len(labels) - 1)
    return np.where(labels[order[at]] == ids, order[at], -1)


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
        raise InputError(
            f"ids: expected the ids of all {n} stored vectors, {len(missing)} are missing ({_examples(missing)}); "
            f"a sample will do with encoding='frozen'"
        )
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


def check_corpus(adapter: Adapter, state: IndexState, corpus: Vectors, rng: np.random.Generator) -> None:
    """Refuse embeddings that are plainly not the ones behind the index.

    Raises:
        InputError: a sample of them does not go with its codes, see :meth:`Adapter.misfit`.
    """
    rows = np.sort(rng.choice(state.n, min(state.n, SAMPLE), replace=False)).astype(np.int64)
    misfit = adapter.misfit(state, rows, adapter.transform(corpus.take(rows)))
    if misfit is not None:
        raise InputError(
            f"embeddings: expected the vectors behind the index, got ones that {misfit}; check the file, its order, "
            f"its scale and ids="
        )


def open_queries(adapter: Adapter, queries: Any, name: str, block_rows: int) -> Vectors:
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


@dataclass(frozen=True)
class Splitter:
    """Makes training and validation queries of what a user passes.

    Attributes:
        adapter: the index.
        corpus: its embeddings, in the order of ``labels``.
        labels: the ids that it holds, int64 ``(n,)``.
        config: for ``validation_fraction``, ``max_queries``, ``fill_to`` and ``block_rows``.
        rng: source of randomness.
        query_encoder: the module that queries are to be encoded with, or None.
        device: where it runs.
    """

    adapter: Adapter
    corpus: Vectors
    labels: Int64
    config: DistillConfig
    rng: np.random.Generator
    query_encoder: Any
    device: torch.device

    def split(self, given: Given, held_out: Given) -> tuple[Queries, Queries]:
        """Training and validation queries.

        Raises:
            InputError: one of them is wrong, or lacks what it belongs to, or there are too few queries.
        """
        some, others = (g.queries is not None or g.inputs is not None for g in (given, held_out))
        for name, present, belongs in (
            ("relevant", given.relevant is not None, some),
            ("validation_queries", others, some),
            ("validation_relevant", held_out.relevant is not None, others),
            ("query_encoder", self.query_encoder is not None, some),
        ):
            if present and not belongs:
                raise InputError(f"{name}: expected together with the queries it belongs to, got it without them")
        for name, value in (("query_inputs", given.inputs), ("validation_query_inputs", held_out.inputs)):
            if value is not None and self.query_encoder is None:
                raise InputError(f"{name}: expected together with query_encoder=, got it without one")
        if others and (given.inputs is None) != (held_out.inputs is None):
            missing = "query_inputs" if given.inputs is None else "validation_query_inputs"
            raise InputError(f"{missing}: expected inputs for queries and validation_queries alike, got none")
        if not some:
            rows = self.rng.permutation(self.corpus.n)[: min(STAND_INS, self.config.max_queries)]
            return self._divide(Queries(self._documents(rows), rows).distinct(), "embeddings")
        whole = self._load(given, "")
        if not others:
            train, validation = self._divide(whole, "queries")
            return self._filled(train, validation), validation
        validation = self._load(held_out, "validation_").distinct(but=whole)
        if len(validation.vectors) < MIN_QUERIES // 3:
            raise InputError(
                f"validation_queries: expected at least {MIN_QUERIES // 3} distinct ones that are not in queries, "
                f"got {len(validation.vectors)}; pass more, "
                f"or leave them out to have some held out of queries"
            )
        return self._filled(whole, validation), validation

    def _filled(self, train: Queries, validation: Queries) -> Queries:
        """Training queries with documents added that are none of the validation queries, if there are few."""
        config, n = self.config, len(train.vectors)
        full = min(config.fill_to, self.corpus.n // 3)
        labelled = config.mixture.has("gt") or config.loss is Loss.CONTRASTIVE
        if 4 * n >= full or labelled or self.query_encoder is not None:
            return train
        rows = self.rng.permutation(self.corpus.n)[: full - n]
        added = Queries(self._documents(rows), rows).distinct(but=validation)
        assert added.rows is not None
        return Queries(
            np.concatenate([train.vectors, added.vectors]),
            np.concatenate([np.full(n, -1, dtype=np.int64), added.rows]),
        )

    def _documents(self, rows: Int64) -> Float32:
        order = np.argsort(rows)
        out = np.empty((len(rows), self.corpus.d), dtype=np.float32)
        out[order] = self.corpus.take(rows[order])  # ascending: kind to a memory-mapped file
        return out

    def _load(self, given: Given, prefix: str) -> Queries:
        encoder, entries, vectors = self.query_encoder, None, None
        if given.queries is not None:
            vectors = open_queries(self.adapter, given.queries, f"{prefix}queries", self.config.block_rows)
        if given.inputs is not None:
            entries = query_encoders.as_inputs(given.inputs, f"{prefix}query_inputs")
        counts = [x.n if isinstance(x, Vectors) else len(x) for x in (vectors, entries) if x is not None]
        if counts[-1] != counts[0]:
            raise InputError(f"{prefix}query_inputs: expected one for each of {counts[0]} queries, got {counts[1]}")
        known = None
        if given.relevant is not None:
            known = open_relevant(given.relevant, counts[0], self.labels, f"{prefix}relevant")
        rows = np.sort(self.rng.permutation(counts[0])[: self.config.max_queries])
        known = None if known is None else known[rows]
        taken = None if vectors is None else vectors.take(rows)
        entries = taken if entries is None else entries[rows]
        if encoder is None:
            entries = None
        elif entries is not None:
            query_encoders.check_encoder(encoder, entries, self.adapter.index.d, self.device)
            if taken is None:  # what the encoder makes of them before it learns
                taken = query_encoders.encode(encoder, entries, self.device).cpu().numpy()
        assert taken is not None  # there were queries, or inputs with an encoder
        return Queries(taken, None, known, entries).distinct()

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
