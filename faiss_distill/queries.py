"""The queries that a user passes, told apart and split into those that train and those that judge."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from faiss_distill import query_encoders
from faiss_distill.adapters import Adapter
from faiss_distill.config import DistillConfig, Loss
from faiss_distill.errors import InputError
from faiss_distill.inputs import open_queries
from faiss_distill.likeness import Likeness
from faiss_distill.provenance import SAMPLE
from faiss_distill.readers import Vectors
from faiss_distill.relevance import open_relevant
from faiss_distill.state import Float32, Int64, Metric

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
            return self._divide(Queries(self._documents(rows), rows).distinct(self._likeness), "embeddings")
        whole = self._load(given, "").distinct(self._likeness)
        if not others:
            train, validation = self._divide(whole, "queries")
            return self._filled(train, validation), validation
        validation = self._load(held_out, "validation_").distinct(self._likeness, but=whole)
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
        added = Queries(self._documents(rows), rows).distinct(self._likeness, but=validation)
        assert added.rows is not None
        return Queries(
            np.concatenate([train.vectors, added.vectors]),
            np.concatenate([np.full(n, -1, dtype=np.int64), added.rows]),
        )

    @cached_property
    def _likeness(self) -> Likeness:
        """When queries are the same: those that rank documents alike, measured by some of these."""
        some = np.unique(np.linspace(0, self.corpus.n - 1, SAMPLE, dtype=np.int64))
        directions = self.adapter.normalizes or self.adapter.metric is Metric.INNER_PRODUCT
        return Likeness.among(self.corpus.take(some), directions)

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
        return Queries(taken, None, known, entries)

    def _divide(self, whole: Queries, name: str) -> tuple[Queries, Queries]:
        n = len(whole.vectors)
        if n < MIN_QUERIES:
            raise InputError(
                f"{name}: expected at least {MIN_QUERIES} distinct ones to train on some and judge by others, got {n}; "
                f"pass more queries, or none to have documents stand in for them"
            )
        held_out = min(max(round(self.config.validation_fraction * n), MIN_VALIDATION), n // 3, MAX_VALIDATION)
        judges, others = self._likeness.hold_out(whole.vectors, self.rng.permutation(n), held_out)
        if len(judges) < MIN_QUERIES // 3:
            raise InputError(
                f"{name}: expected at least {MIN_QUERIES // 3} to judge by that are unlike all others, got "
                f"{len(judges)}; pass more that are not the same in other words, or validation_queries"
            )
        return whole.take(others), whole.take(judges)
