"""What a user passes, checked and lined up with the index, before anything is touched."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data import provenance, shift
from faiss_distill.data.ids import NOTHING, as_ids, examples
from faiss_distill.data.vectors import Vectors, open_vectors
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.files import stored_name
from faiss_distill.index.registry import Adapter
from faiss_distill.state import Float32, IndexState, Int64, Metric

logger = logging.getLogger(__name__)

SHIFT_QUERIES = 100
"""Queries that tell what a mean does to the ranking, at most."""
DESTRUCTIVE, SLIGHT = 0.5, 0.9
"""What is left of the ranking behind a mean, as a share of what the index could find without it: too little to tune
below the first, worth no word above the second."""


def open_corpus(
    adapter: Adapter, embeddings: Any, labels: Int64, ids: Any, partial: bool = False
) -> tuple[Vectors, Int64]:
    """The embeddings in the order of ``labels``.

    Args:
        adapter: the index.
        embeddings: see :func:`faiss_distill.data.formats.open_vectors`; None for those that the index holds itself.
        labels: outer ids of the stored vectors, distinct, int64 ``(n,)``.
        ids: id of each embedding, or None if row ``i`` belongs to id ``i``.
        partial: whether ``ids`` may lack some of the stored vectors.

    Returns:
        The embeddings, and which of ``labels`` they belong to, ascending int64.

    Raises:
        InputError: wrong dimension, none at all, or embeddings and stored ids are not one to one.
    """
    kept: Int64 | None = None
    ids = None if ids is None else as_ids(ids, "ids")
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
    if partial and not adapter.traits.takes_a_sample and corpus.n < len(labels):
        raise InputError(
            f"embeddings: expected all {len(labels)} vectors, got {corpus.n}; an index without lists can't be searched "
            f"with a sample"
        )
    if partial and adapter.traits.takes_a_sample and ids is not None:
        held = np.flatnonzero(np.isin(labels, ids))
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


def _rows_of(labels: Int64, n_embeddings: int, ids: Int64 | None) -> Int64:
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
    if ids.shape != (n_embeddings,):
        raise InputError(f"ids: expected {n_embeddings} integers, one a row, got shape {ids.shape}")
    if (ids == NOTHING).any():
        raise InputError(
            "ids: expected others than -1, which faiss returns where it found nothing, got it; such a vector needs "
            "another id"
        )
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(doubles):
        raise InputError(f"ids: expected distinct ids, got {len(doubles)} repeated ({examples(doubles)})")
    missing = np.setdiff1d(labels, ordered)
    if len(missing):
        raise InputError(
            f"ids: expected the ids of all {n} stored vectors, {len(missing)} are missing ({examples(missing)}); "
            f"a sample will do with encoding='frozen'"
        )
    if n_embeddings > n:
        extra = np.setdiff1d(ordered, labels)
        raise InputError(f"ids: expected only ids that the index holds, got {len(extra)} others ({examples(extra)})")
    return order[np.searchsorted(ordered, labels)]


def check_corpus(adapter: Adapter, state: IndexState, corpus: Vectors, rng: np.random.Generator) -> None:
    """Refuse embeddings that are not the ones behind the index, as far as codes tell.

    Raises:
        InputError: a sample of them does not go with its codes, see :mod:`faiss_distill.data.provenance`.
    """
    if not adapter.decodes:
        return
    order = np.argsort(corpus.rows)  # as they were passed
    found = provenance.fault(
        provenance.Corpus(
            rows=corpus.rows[order],
            passed=lambda at: corpus.take(order[at]),
            transform=adapter.transforms,
            decode=lambda at: adapter.decode(state, order[at]),
            encode_again=lambda at, vectors: adapter.encode_again(state, order[at], vectors),
        ),
        rng,
    )
    if found is not None:
        raise InputError(f"embeddings: expected the vectors behind the index, got ones that {found}")


def check_scores(adapter: Adapter, corpus: Vectors, queries: Float32, rng: np.random.Generator, tunes: bool) -> None:
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
        raise UnsupportedIndexError(f"index: expected one that ranks by the inner product of the vectors, but {found}")
    logger.warning("%s", found)


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
