"""What a user passed, opened and lined up with the index, once for all that is done with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from faiss_distill.columns import ascending, numbers
from faiss_distill.data import provenance, query_encoders, shift
from faiss_distill.data.alignment import positions, rows_of
from faiss_distill.data.queries import Queries
from faiss_distill.data.vectors import Vectors, open_vectors
from faiss_distill.errors import BEHIND, InputError, MismatchError, UnsupportedIndexError
from faiss_distill.evaluation.measure import QuerySet
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.index.sources import open_embeddings
from faiss_distill.learning.given_teacher import GivenTeacher
from faiss_distill.learning.list_teacher import ListTeacher
from faiss_distill.learning.taught import Taught
from faiss_distill.learning.teacher import Teacher
from faiss_distill.state import Float32, IndexState, Int64, Metric

logger = logging.getLogger(__name__)

SHIFT_QUERIES = 100
"""Queries that tell what a mean does to the ranking, at most."""
DESTRUCTIVE, SLIGHT = 0.5, 0.9
"""What is left of the ranking behind a mean, as a share of what the index could find without it: too little to tune
below the first, worth no word above the second."""
WITHOUT = "leave it out to use documents instead"
"""What to do about ``queries`` in a tuning that there are none of."""


@dataclass(frozen=True)
class Task:
    """An index and the embeddings behind it, or behind some of its vectors.

    Attributes:
        adapter: the index.
        state: of all its vectors.
        ids: their ids, as a search returns them, int64 ``(n,)``.
        corpus: the embeddings.
        rows: which of the vectors they belong to, ascending int64.
    """

    adapter: IndexAdapter
    state: IndexState
    ids: Int64
    corpus: Vectors
    rows: Int64

    @property
    def partial(self) -> bool:
        """Whether some vectors have no embeddings here."""
        return len(self.rows) < self.state.n

    @cached_property
    def sample(self) -> IndexState:
        """The state of the vectors that have embeddings here."""
        return self.state.take(self.rows) if self.partial else self.state

    @property
    def sample_ids(self) -> Int64:
        """Their ids, in the order of the corpus."""
        return self.ids[self.rows] if self.partial else self.ids

    def taught(self, queries: Queries, teacher: Teacher | ListTeacher | GivenTeacher, depth: int) -> Taught:
        """Queries with their exact Top-``depth``, and the rows of the documents that are relevant to them."""
        return self.lined_up(queries, *teacher.top_k(self.corpus, queries.vectors, depth, queries.rows))

    def lined_up(self, queries: Queries, top: Int64, scores: Float32) -> Taught:
        """Queries with what was found for them, and the rows of the documents that are relevant to them."""
        relevant = None if queries.relevant is None else positions(self.sample_ids, queries.relevant)
        return Taught(queries, top, scores, relevant)

    def query_set(self, taught: Taught, encoder: nn.Module | None, device: torch.device) -> QuerySet:
        """As the outer index takes them: the queries, or what an encoder on ``device`` makes of them."""
        queries = taught.queries
        vectors = queries.vectors
        if encoder is not None and queries.inputs is not None:
            vectors = query_encoders.embed(encoder, queries.inputs, device).cpu().numpy()
        relevant = None
        if taught.relevant is not None and queries.relevant is not None:
            relevant = np.where(taught.relevant >= 0, queries.relevant, -1)
        own = None if queries.rows is None else np.where(queries.rows < 0, -1, self.sample_ids[queries.rows])
        return QuerySet(vectors, self.sample_ids[taught.top], own, relevant)

    def check(self, queries: Float32, rng: np.random.Generator, tunes: bool) -> None:
        """Refuse embeddings that are not those behind the index, and a ranking that is not that of the embeddings.

        Args:
            queries: what is searched for, float32 ``(nq, d_in)``.
            rng: source of randomness.
            tunes: whether the index is to be tuned, not only measured.

        Raises:
            UnsupportedIndexError: the index takes a mean off that most of the ranking is lost by.
            InputError: the embeddings do not go with the codes.
        """
        check_corpus(self.adapter, self.sample, self.corpus, rng)
        check_scores(self.adapter, self.corpus, queries, rng, tunes)


def open_task(adapter: IndexAdapter, embeddings: Any, ids: Any, partial: bool, queries: Any = None) -> Task:
    """Open the embeddings and line them up with the index, of which nothing is changed.

    Args:
        adapter: the index.
        embeddings: see :func:`faiss_distill.index.sources.open_embeddings`; None for those that the index holds itself.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        partial: whether ``ids`` may lack some of the stored vectors.
        queries: those that were passed along, for the error if the two are swapped.

    Raises:
        InputError: wrong dimension, none at all, or embeddings and stored ids are not one to one.
    """
    state = adapter.extract()
    stored = adapter.outer_ids(state.ids)
    try:
        return Task(adapter, state, stored, *_open_corpus(adapter, embeddings, stored, ids, partial))
    except InputError as error:
        known = embeddings is not None and queries is not None and not partial
        if known and error.argument in ("embeddings", "ids"):
            n, (corpus, own) = open_vectors(queries, "queries").n, open_embeddings(embeddings, ids)
            if n == len(stored) != corpus.n and (own is None or len(own) != corpus.n):
                raise replace(error, hint=f"queries have {n} rows: are embeddings and queries swapped?") from error
        raise


def _open_corpus(
    adapter: IndexAdapter, embeddings: Any, stored: Int64, ids: Any, partial: bool
) -> tuple[Vectors, Int64]:
    """The embeddings, in the order of their ids in ``stored``, and which of ``stored`` these are, ascending."""
    kept: Int64 | None = None
    if embeddings is None:
        own = adapter.vectors
        if own is None:
            raise InputError(
                "embeddings",
                "the vectors behind the index",
                "None",
                "only an IndexRefineFlat, or an IndexRefine by a scalar quantizer of 8 bits or more, outside of "
                "any transform holds them itself; of a vector store, pass the store",
            )
        if ids is not None:
            raise InputError("ids", "together with embeddings", "them without")
        embeddings, ids = own
        kept = np.flatnonzero(np.isin(ids, stored))  # not those that were removed from the index inside
    corpus, ids = open_embeddings(embeddings, ids)
    if kept is not None and len(kept) < corpus.n:
        corpus, ids = corpus.select(kept), ids[kept]
    if corpus.d != adapter.index.d:
        raise InputError("embeddings", f"dimension {adapter.index.d} as the index has", str(corpus.d))
    held = numbers(len(stored))
    if partial and not adapter.traits.takes_a_sample and corpus.n < len(stored):
        raise InputError(
            "embeddings",
            f"all {len(stored)} vectors",
            str(corpus.n),
            "an index without lists can't be searched with a sample",
        )
    if partial and ids is None and corpus.n < len(stored):
        raise InputError("ids", f"the id of each row, as only {corpus.n} of {len(stored)} vectors are passed", "none")
    if partial and adapter.traits.takes_a_sample and ids is not None:
        held = np.flatnonzero(np.isin(stored, ids))
        if len(held) == 0:
            raise InputError("ids", "ids that the index holds", "none that it does")
    rows = rows_of(stored if len(held) == len(stored) else stored[held], corpus.n, ids)
    return corpus if np.array_equal(rows, numbers(corpus.n)) else corpus.select(rows), held


def check_corpus(adapter: IndexAdapter, state: IndexState, corpus: Vectors, rng: np.random.Generator) -> None:
    """Refuse embeddings that are not the ones behind the index, as far as codes tell.

    Raises:
        InputError: a sample of them does not go with its codes, see :mod:`faiss_distill.data.provenance`.
    """
    if not adapter.decodes:
        return
    rows = corpus.rows
    order = numbers(corpus.n) if ascending(rows) else np.argsort(rows)  # as they were passed
    found = provenance.fault(
        provenance.Corpus(
            rows=rows[order],
            passed=lambda at: corpus.take(order[at]),
            transform=adapter.transforms,
            decode=lambda at: adapter.decode(state, order[at]),
            encode_again=lambda at, vectors: adapter.encode_again(state, order[at], vectors),
        ),
        rng,
    )
    if found is not None:
        raise MismatchError("embeddings", BEHIND, f"ones that {found}")


def check_scores(
    adapter: IndexAdapter, corpus: Vectors, queries: Float32, rng: np.random.Generator, tunes: bool
) -> None:
    """Warn of an index whose inner products are not those of the vectors passed, and refuse to tune one far from it.

    Raises:
        UnsupportedIndexError: it takes a mean off that most of the ranking is lost by.
    """
    if adapter.metric is not Metric.INNER_PRODUCT:
        return
    sample = np.sort(rng.choice(corpus.n, min(corpus.n, provenance.SAMPLE), replace=False))
    asked = queries[:: -(-len(queries) // SHIFT_QUERIES)]
    shares = shift.overlaps(adapter.transforms.steps, corpus.take(sample), asked, adapter.normalizes)
    if shares is None or shares[0] > SLIGHT * shares[1]:
        return
    found = (
        f"its transforms take a mean off documents and queries alike, which changes inner products: of the exact top "
        f"10 an exact search behind them finds {shares[0]:.0%}, and {shares[1]:.0%} without the mean; build it with "
        f"METRIC_L2, or with a transform that takes off no mean, such as OPQ or RR"
    )
    if tunes and shares[0] < DESTRUCTIVE * shares[1]:
        raise UnsupportedIndexError("index", "one that ranks by the inner product of the vectors", hint=found)
    logger.warning("%s", found)


def open_queries(adapter: IndexAdapter, queries: Any, name: str, block_rows: int, hint: str = "") -> Vectors:
    """Queries, checked in full.

    Args:
        adapter: the index.
        queries: as they were passed.
        name: of the argument.
        block_rows: rows read at a time.
        hint: what to do if there are none.

    Raises:
        InputError: wrong dimension, none at all, or not finite.
    """
    vectors = open_vectors(queries, name)
    if vectors.d != adapter.index.d:
        raise InputError(name, f"dimension {adapter.index.d} as the index has", str(vectors.d))
    if vectors.n == 0:
        raise InputError(name, "at least one query", "none", hint)
    vectors.check_finite(block_rows)
    return vectors
