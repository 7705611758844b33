"""A teacher whose neighbours were found elsewhere: passed as arrays, or found by an index that stores more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from faiss_distill.data.alignment import positions
from faiss_distill.data.ids import NOTHING
from faiss_distill.data.neighbours import Neighbours
from faiss_distill.data.queries import Queries
from faiss_distill.data.vectors import Vectors
from faiss_distill.errors import InputError
from faiss_distill.learning.list_teacher import SAMPLED, ListTeacher
from faiss_distill.learning.teacher import Teacher
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, Int64

logger = logging.getLogger(__name__)

AGREEMENT = 0.5
"""Share of the exact neighbours below which what was passed can't belong to these queries and embeddings."""
CLOSE = 0.05
"""What given scores may be off by, in units of their spread: half precision and fine quantizers are within."""
DEEPER = 2
"""Times as many documents are asked of an index as are wanted, and scored exactly."""
BELONG = (
    "neighbours must belong to these queries, row by row, and to these embeddings; an index may have to look further: "
    "set its nprobe or efSearch"
)


@dataclass(frozen=True)
class GivenTeacher:
    """Neighbours that were found elsewhere, of one set of queries.

    Attributes:
        known: what was found for them.
        others: makes the teacher of queries of whose neighbours too few are known.
        agreement: share of the exact Top-K of a sample of the queries that is known.
        kind: that of the teacher, as the report has it.
        cost: none.
    """

    known: Neighbours
    others: Callable[[Int64], Teacher | ListTeacher]
    agreement: float

    kind: ClassVar[str] = "given"
    cost: ClassVar[float] = 0.0

    def top_k(self, corpus: Vectors, queries: Float32, k: int, exclude: Int64 | None = None) -> tuple[Int64, Float32]:
        """As :meth:`faiss_distill.learning.teacher.Teacher.top_k`, of the queries that the neighbours belong to."""
        ids, scores = self.known.rows[:, :k].copy(), self.known.scores[:, :k].copy()
        short = np.flatnonzero((ids < 0).any(axis=1))
        if len(short):
            own = None if exclude is None else exclude[short]
            ids[short], scores[short] = self.others(short).top_k(corpus, queries[short], k, own)
        return ids, scores


def compared(
    exact: Teacher, corpus: Vectors, queries: Queries, known: Neighbours, k: int, rng: np.random.Generator
) -> float:
    """Share of the exact Top-K of a sample of the queries that is known.

    Args:
        exact: exhaustive search.
        corpus: the embeddings.
        queries: ``nq`` of them.
        known: what was found for each.
        k: neighbours a query.
        rng: source of randomness.

    Raises:
        InputError: it is so little, or scores are so far off, that what was passed belongs to something else.
    """
    full = np.flatnonzero((known.rows[:, :k] >= 0).all(axis=1))
    if len(full) == 0:
        raise InputError("teacher", f"{k} neighbours for some of the queries", "fewer for each")
    some = np.sort(rng.permutation(full)[:SAMPLED])
    own = None if queries.rows is None else queries.rows[some]
    top, _ = exact.top_k(corpus, queries.vectors[some], k, own)
    found = known.take(some)
    share = float(np.mean([np.isin(one, other).mean() for one, other in zip(top, found.rows[:, :k], strict=True)]))
    if share < AGREEMENT:
        wanted = f"at least {AGREEMENT:.0%} of the exact {k} nearest, as exact search finds for {len(some)} queries"
        raise InputError("teacher", wanted, f"{share:.0%}", BELONG)
    few = slice(0, max(1, 2**14 // k))
    scores = rescored(exact, corpus, queries.vectors[some[few]], found.rows[few, :k])
    off = float(np.median(np.abs(scores - found.scores[few, :k]))) / max(float(scores.std()), 1e-12)
    if off > CLOSE:
        raise InputError(
            "teacher",
            f"scores as exact search gives them ({exact.metric.value}), the first being {scores[0, 0]:.4g}",
            f"others, the first being {found.scores[0, 0]:.4g}, off by {off:.2g} of their spread",
            "pass inner products, or squared L2 distances, as the index's metric is",
        )
    logger.info("teacher: neighbours that were passed, with %.1f %% of the exact top %d", 100 * share, k)
    return share


def rescored(exact: Teacher, corpus: Vectors, queries: Float32, rows: Int64) -> Float32:
    """Exact scores of ``queries (nq, d)`` on documents of their own, ``rows (nq, k)``; -inf where a row is -1."""
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    size = max(1, exact.block_rows // rows.shape[1])
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        documents, at = np.unique(rows[part].clip(min=0), return_inverse=True)
        x = torch.from_numpy(corpus.take(documents)).to(exact.device)
        own = x[torch.from_numpy(at.reshape(rows[part].shape)).to(exact.device)]
        found = exact.own_scores(torch.from_numpy(queries[part]).to(exact.device), own)
        scores[part] = np.where(rows[part] >= 0, found.cpu().numpy(), -np.inf)
    return scores


def found_by(index: Any, exact: Teacher, corpus: Vectors, labels: Int64, queries: Queries, k: int) -> Neighbours:
    """What a faiss index finds for queries, scored exactly and without the documents that they are themselves.

    Args:
        index: what is searched.
        exact: what scores.
        corpus: the embeddings.
        labels: their ids in the index, int64 ``(n,)``.
        queries: ``nq`` of them.
        k: neighbours wanted.
    """
    depth = min(DEEPER * k + 1, index.ntotal)
    ids = np.full((len(queries.vectors), max(depth, k)), NOTHING, dtype=np.int64)
    size = max(1, exact.block_rows // depth)
    with progress_bar(len(ids), "teacher", "queries", exact.progress) as bar:
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            ids[part, :depth] = index.search(queries.vectors[part], depth)[1]
            bar.update(len(ids[part]))
    rows = positions(labels, ids)  # once: it sorts the labels
    if queries.rows is not None:
        rows[rows == queries.rows[:, None]] = -1
    unscored = Neighbours(rows, np.full(rows.shape, np.nan, dtype=np.float32))
    found = unscored.scored(rescored(exact, corpus, queries.vectors, rows))
    return Neighbours(*exact.world.agreed((found.rows[:, :k], found.scores[:, :k])))
