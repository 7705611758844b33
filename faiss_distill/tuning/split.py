"""The queries that a user passes, told apart and split into those that train and those that judge."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from faiss_distill.columns import permuted
from faiss_distill.config import DistillConfig
from faiss_distill.data import query_encoders
from faiss_distill.data.alignment import positions
from faiss_distill.data.likeness import Likeness, unit
from faiss_distill.data.moving import moved
from faiss_distill.data.neighbours import open_neighbours
from faiss_distill.data.provenance import SAMPLE
from faiss_distill.data.queries import Given, Queries
from faiss_distill.data.relevance import open_relevant
from faiss_distill.data.stand_ins import DOCUMENTS, Comparison, compared, spaced
from faiss_distill.data.vectors import Vectors
from faiss_distill.errors import InputError
from faiss_distill.losses import LOSSES
from faiss_distill.state import Float32, Int64, Metric
from faiss_distill.tuning.task import WITHOUT, Task, open_queries

logger = logging.getLogger(__name__)

MIN_QUERIES = 60
"""Fewer can't be split into a training and a validation set that decide anything."""
MIN_VALIDATION, MAX_VALIDATION = 200, 5_000
"""Held-out queries, when the split is ours (and at most a third of all): fewer decide little, more only cost time."""
STAND_INS = 40_000
"""Documents that are used as queries where there are none, validation included, at most."""


def check_number(n: int, name: str) -> None:
    """Refuse fewer queries than can be split.

    Raises:
        InputError: there are fewer than :data:`MIN_QUERIES`.
    """
    if n < MIN_QUERIES:
        raise InputError(
            name,
            f"at least {MIN_QUERIES} distinct ones to train on some and judge by others",
            str(n),
            f"pass more, or {MIN_QUERIES // 3} or more as validation_queries alone, to judge documents used as queries",
        )


def _check_judges(validation: Queries, which: str, otherwise: str) -> None:
    if len(validation.vectors) < MIN_QUERIES // 3:
        raise InputError(
            "validation_queries",
            f"at least {MIN_QUERIES // 3} distinct ones{which}",
            str(len(validation.vectors)),
            f"pass more, or {otherwise}",
        )


def n_held_out(n: int, fraction: float) -> int:
    """How many of ``n`` queries choose and judge, when the split is ours."""
    return min(max(round(fraction * n), MIN_VALIDATION), n // 3, MAX_VALIDATION)


class Split(NamedTuple):
    """What a user passes, as it is used.

    Attributes:
        train: queries to train on, real ones first, then documents.
        validation: others, which choose and judge: all real, or all documents.
        compared: real queries beside documents; None where there are none, or where documents are not needed.
    """

    train: Queries
    validation: Queries
    compared: Comparison | None


@dataclass(frozen=True)
class Splitter:
    """Makes training and validation queries of what a user passes.

    Attributes:
        task: the index and its embeddings.
        config: for ``validation_fraction``, ``max_queries``, ``fill_to`` and ``block_rows``.
        rng: source of randomness.
        query_encoder: the module that queries are to be encoded with, or None.
        device: where it runs.
    """

    task: Task
    config: DistillConfig
    rng: np.random.Generator
    query_encoder: Any
    device: torch.device

    def split(self, given: Given, held_out: Given) -> Split:
        """Training queries that can be trained on, and validation queries.

        Raises:
            InputError: one of them is wrong, or lacks what it belongs to, or there are too few queries.
        """
        split = self._both(given, held_out)
        return split._replace(train=self._rankable(split.train))

    def _both(self, given: Given, held_out: Given) -> Split:
        some, others = (g.queries is not None or g.inputs is not None for g in (given, held_out))
        for name, present, belongs in (
            ("relevant", given.relevant is not None, some),
            ("teacher", given.neighbours is not None, some),
            ("validation_query_inputs", held_out.inputs is not None, some),
            ("validation_relevant", held_out.relevant is not None, others),
            ("query_encoder", self.query_encoder is not None, some),
        ):
            if present and not belongs:
                raise InputError(name, "together with the queries it belongs to", "it without them")
        for name, value in (("query_inputs", given.inputs), ("validation_query_inputs", held_out.inputs)):
            if value is not None and self.query_encoder is None:
                raise InputError(name, "together with query_encoder=", "it without one")
        if others and (given.inputs is None) != (held_out.inputs is None):
            missing = "query_inputs" if given.inputs is None else "validation_query_inputs"
            raise InputError(missing, "inputs for queries and validation_queries alike", "none")
        if not others:
            whole = self._load(given, "").distinct(self._likeness) if some else self._stand_ins(STAND_INS)
            train, validation = self._divide(whole, "queries" if some else "embeddings")
            return self._filled(train, validation) if some else Split(train, validation, None)
        if not some:
            validation = self._load(held_out, "validation_").distinct(self._likeness)
            _check_judges(validation, "", "none, to judge by documents used as queries")
            train = self._stand_ins(STAND_INS, but=validation)
            return Split(train, validation, self._compared(validation))
        whole = self._load(given, "").distinct(self._likeness)
        validation = self._load(held_out, "validation_").distinct(self._likeness, but=whole)
        _check_judges(validation, " that are not in queries", "leave them out to have some held out of queries")
        return self._filled(whole, validation)

    def _stand_ins(self, wanted: int, but: Queries | None = None) -> Queries:
        """Documents that are used as queries."""
        rows = permuted(self.task.corpus.n, self.rng)[: min(wanted, self.config.max_queries)]
        return Queries(self._documents(rows), rows).distinct(self._likeness, but=but)

    def _compared(self, real: Queries) -> Comparison | None:
        """Real queries beside documents."""
        adapter = self.task.adapter
        return compared(self._sample, real.vectors, adapter.metric, adapter.normalizes)

    def _rankable(self, train: Queries) -> Queries:
        """Those of the training queries that ``candidates`` can be drawn for; refused if a batch can't be."""
        config, mixture = self.config, self.config.mixture
        if mixture.has("gt"):
            if train.relevant is None:
                had = f"'gt' in {config.candidates!r}"
                raise InputError("candidates", "sources that need no labels", had, "pass relevant=")
            if all(source.kind == "gt" for source in mixture.sources):
                known = (positions(self.task.sample_ids, train.relevant) >= 0).sum(axis=1)
                known = known >= (1 if mixture.in_batch else 2)  # one alone can't be ranked
                train = train.take(np.flatnonzero(known))
                if not known.all():
                    logger.warning("%d training queries with too few labelled documents are left out", (~known).sum())
            if len(train.vectors) == 0:
                wanted = "some that are among the embeddings and belong to training queries"
                raise InputError("relevant", wanted, "none", "add a source that needs no labels to candidates")
        if config.batch_size is not None and config.batch_size > len(train.vectors):
            most, hint = f"at most the {len(train.vectors)} training queries", "leave it out for as many as there are"
            raise InputError("batch_size", most, str(config.batch_size), hint)
        return train

    def _filled(self, train: Queries, validation: Queries) -> Split:
        """Training queries; if there are few, with documents added that are moved to where they are."""
        config, n = self.config, len(train.vectors)
        full = min(config.fill_to, self.task.corpus.n)
        labelled = config.mixture.has("gt") or LOSSES[config.loss].compares == "labels"
        if 2 * n >= full or labelled or self.query_encoder is not None:
            return Split(train, validation, None)
        rows = permuted(self.task.corpus.n, self.rng)[: full - n]
        added = Queries(self._documents(rows), rows).distinct(self._likeness, but=validation)
        assert added.rows is not None
        known = train.neighbours
        train = Queries(
            np.concatenate([train.vectors, self._moved(added.vectors, train.vectors)]),
            np.concatenate([np.full(n, -1, dtype=np.int64), added.rows]),
            neighbours=None if known is None else known.followed_by_unknown(len(added.vectors)),
        )
        return Split(train, validation, self._compared(validation))

    def _moved(self, documents: Float32, queries: Float32) -> Float32:
        """Documents as queries, moved to where these real ones are."""
        adapter, sample = self.task.adapter, self._sample
        if adapter.normalizes:
            documents, sample, queries = unit(documents), unit(sample), unit(queries)
        directions = adapter.normalizes or adapter.metric is Metric.INNER_PRODUCT
        return moved(documents, sample, queries, directions)

    @cached_property
    def _sample(self) -> Float32:
        """Some of the documents."""
        return self.task.corpus.take(spaced(self.task.corpus.n, DOCUMENTS))

    @cached_property
    def _likeness(self) -> Likeness:
        """When queries are the same: those that rank documents alike, measured by some of these."""
        some = np.unique(np.linspace(0, self.task.corpus.n - 1, SAMPLE, dtype=np.int64))
        directions = self.task.adapter.normalizes or self.task.adapter.metric is Metric.INNER_PRODUCT
        return Likeness.among(self.task.corpus.take(some), directions)

    def _documents(self, rows: Int64) -> Float32:
        order = np.argsort(rows)
        out = np.empty((len(rows), self.task.corpus.d), dtype=np.float32)
        out[order] = self.task.corpus.take(rows[order])  # ascending: kind to a memory-mapped file
        return out

    def _load(self, given: Given, prefix: str) -> Queries:
        encoder, entries, vectors = self.query_encoder, None, None
        if given.queries is not None:
            adapter, block_rows = self.task.adapter, self.config.block_rows
            vectors = open_queries(adapter, given.queries, f"{prefix}queries", block_rows, WITHOUT)
        if given.inputs is not None:
            entries = query_encoders.as_inputs(given.inputs, f"{prefix}query_inputs")
        counts = [x.n if isinstance(x, Vectors) else len(x) for x in (vectors, entries) if x is not None]
        if counts[-1] != counts[0]:
            raise InputError(f"{prefix}query_inputs", f"one for each of {counts[0]} queries", str(counts[1]))
        known = None
        if given.relevant is not None:
            known = open_relevant(given.relevant, counts[0], self.task.ids, f"{prefix}relevant")
        found = None
        if given.neighbours is not None:
            metric, depth = self.task.adapter.metric, self.config.depth
            found = open_neighbours(given.neighbours, counts[0], self.task.sample_ids, metric, depth, "teacher")
        rows = np.sort(self.rng.permutation(counts[0])[: self.config.max_queries])
        known = None if known is None else known[rows]
        taken = None if vectors is None else vectors.take(rows)
        entries = taken if entries is None else entries[rows]
        if encoder is None:
            entries = None
        elif entries is not None:
            query_encoders.check_encoder(encoder, entries, self.task.adapter.index.d, self.device)
            if taken is None:  # what the encoder makes of them before it learns
                taken = query_encoders.embed(encoder, entries, self.device).cpu().numpy()
        assert taken is not None  # there were queries, or inputs with an encoder
        return Queries(taken, None, known, entries, None if found is None else found.take(rows), passed=rows)

    def _divide(self, whole: Queries, name: str) -> tuple[Queries, Queries]:
        n = len(whole.vectors)
        check_number(n, name)
        wanted = n_held_out(n, self.config.validation_fraction)
        judges, others = self._likeness.hold_out(whole.vectors, self.rng.permutation(n), wanted)
        if len(judges) < MIN_QUERIES // 3:
            raise InputError(
                name,
                f"at least {MIN_QUERIES // 3} to judge by that are unlike all others",
                str(len(judges)),
                "pass more that are not the same in other words, or validation_queries",
            )
        return whole.take(others), whole.take(judges)
