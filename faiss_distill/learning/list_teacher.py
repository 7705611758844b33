"""A teacher that looks into a query's nearest lists only, at a fraction of the cost of looking everywhere.

Scores are exact; what no probed list holds is not found. How many lists it takes is measured: as many as hold nearly
all of the exact Top-K of a sample of the queries. Documents are read once, list by list, and each list is multiplied
with all the queries that look into it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import faiss
import numpy as np
import torch
from torch import Tensor

from faiss_distill.data.vectors import Vectors
from faiss_distill.learning.students import similarity
from faiss_distill.learning.teacher import Teacher, best_of_all
from faiss_distill.metrics import all_but
from faiss_distill.progress import progress_bar
from faiss_distill.state import Float32, IndexState, Int64, Metric, Transforms

logger = logging.getLogger(__name__)

WORTH_IT = 2 * 10**11
"""Multiplications of an exhaustive search below which it is not worth avoiding: a few seconds."""
SAMPLED = 500
"""Queries whose exact Top-K says how many lists to look into."""
HELD = 0.98
"""Share of these Top-Ks that the lists must hold."""
SELECTION = 1000
"""Multiplications that keeping the best costs for each document scored."""
BUFFERED = 3
"""Times as many documents as are wanted that are kept before the best are chosen."""
SAVING = 0.7
"""Share of the exhaustive search's cost above which it is preferred."""
MIN_LISTS, ROUNDS = 64, 8
"""Lists of an index below which others are made, and rounds of k-means for these."""


@dataclass(frozen=True)
class Lists:
    """The lists of a corpus.

    Attributes:
        centroids: ``(nlist, d)``.
        assignment: the list of each document, int64 ``(n,)``.
        metric: by which a query's nearest lists are found.
        transforms: what queries pass through before that.
    """

    centroids: Float32
    assignment: Int64
    metric: Metric
    transforms: Callable[[Float32], Float32]

    def nearest(self, queries: Float32, n: int, device: str) -> Int64:
        """A query's nearest lists, best first: int64 ``(nq, n)``."""
        centroids = torch.from_numpy(self.centroids).to(device)
        found = np.empty((len(queries), n), dtype=np.int64)
        rows = max(1, 2**24 // len(centroids))  # scores within 64 MiB
        for start in range(0, len(queries), rows):
            part = torch.from_numpy(self.transforms(queries[start : start + rows])).to(device)
            found[start : start + rows] = similarity(part, centroids, self.metric).topk(n, dim=1).indices.cpu().numpy()
        return found


@dataclass(frozen=True)
class ListTeacher:
    """Exact scores of the documents in a query's nearest lists.

    Attributes:
        exact: what scores, and searches everywhere for queries whose lists hold too few documents.
        lists: those of the corpus.
        probed: how many are looked into.
        agreement: share of the exact Top-K of a sample of the queries that they hold.
        cost: the estimated one, as a share of exhaustive search's.
    """

    exact: Teacher
    lists: Lists
    probed: int
    agreement: float
    cost: float

    kind: ClassVar[str] = "lists"

    def top_k(self, corpus: Vectors, queries: Float32, k: int, exclude: Int64 | None = None) -> tuple[Int64, Float32]:
        """As :meth:`faiss_distill.learning.teacher.Teacher.top_k`, of the documents in the nearest lists."""
        depth = k if exclude is None else k + 1
        ids, scores = self._search(corpus, queries, depth)
        short = np.flatnonzero((ids < 0).any(axis=1))
        if len(short):
            ids[short], scores[short] = self.exact.top_k(corpus, queries[short], depth)
        if exclude is not None:
            kept = all_but(ids, exclude)
            ids, scores = ids[kept].reshape(-1, k), scores[kept].reshape(-1, k)
        return ids, scores

    def _search(self, corpus: Vectors, queries: Float32, k: int) -> tuple[Int64, Float32]:
        device, nlist = self.exact.device, len(self.lists.centroids)
        wanted = self.lists.nearest(queries, self.probed, device).ravel()
        asking = np.argsort(wanted, kind="stable")
        documents = np.argsort(self.lists.assignment, kind="stable")
        first_query = np.searchsorted(wanted[asking], np.arange(nlist + 1))
        lengths = np.bincount(self.lists.assignment, minlength=nlist)
        first_document = np.concatenate([[0], np.cumsum(lengths)])
        q, best = torch.from_numpy(queries).to(device), _Best(len(queries), k, device)
        world = self.exact.world
        mine = np.arange(nlist)[world.rank :: world.size]  # neighbouring lists may be alike, and long
        with progress_bar(int(lengths[mine].sum()), "teacher", "docs", self.exact.progress) as bar:
            for m in mine:
                who = torch.from_numpy(asking[first_query[m] : first_query[m + 1]] // self.probed).to(device)
                held = documents[first_document[m] : first_document[m + 1]]
                for start in range(0, len(held) if len(who) else 0, self.exact.block_rows):
                    rows = held[start : start + self.exact.block_rows]
                    x, named = torch.from_numpy(corpus.take(rows)).to(device), torch.from_numpy(rows).to(device)
                    for some in torch.split(who, max(1, 2**24 // len(rows))):
                        best.add(some, self.exact.scores(q.index_select(0, some), x), named)
                bar.update(len(held))
        return best_of_all(world, *best.top())


class _Best:
    """The best ``k`` documents of each query, from lists one after the other.

    What is better than the worst of a query's best goes into a buffer, which is cut back when it is full: as lists go
    by, that is ever less.
    """

    def __init__(self, n_queries: int, k: int, device: str) -> None:
        """Nothing is known."""
        self._k, size = k, BUFFERED * k
        self._scores = torch.full((n_queries, size), -torch.inf, device=device)
        self._ids = torch.full((n_queries, size), -1, dtype=torch.int64, device=device)
        self._count = torch.zeros(n_queries, dtype=torch.int64, device=device)
        self._worst = torch.full((n_queries,), -torch.inf, device=device)

    def add(self, who: Tensor, scores: Tensor, ids: Tensor) -> None:
        """Scores ``(nq, c)`` of the queries ``who (nq,)`` on the documents ``ids (c,)``."""
        at: Tensor | None = None
        if scores.shape[1] > self._scores.shape[1] - self._k:
            scores, at = scores.topk(self._k, dim=1)
        row, column = (scores > self._worst[who, None]).nonzero(as_tuple=True)
        new = torch.bincount(row, minlength=len(who))
        self._cut(who[self._count[who] + new > self._scores.shape[1]])
        place = torch.arange(len(row), device=row.device) - (new.cumsum(0) - new)[row]
        query = who.index_select(0, row)
        place += self._count.index_select(0, query)
        self._scores[query, place] = scores[row, column]
        self._ids[query, place] = ids[column] if at is None else ids[at[row, column]]
        self._count[who] += new

    def _cut(self, who: Tensor) -> None:
        """Leave the best of some queries, in order."""
        scores, at = self._scores[who].topk(self._k, dim=1)
        ids = self._ids[who].gather(1, at)
        self._scores[who], self._ids[who] = -torch.inf, -1
        self._scores[who, : self._k], self._ids[who, : self._k] = scores, ids
        self._count[who] = self._count[who].clamp(max=self._k)
        self._worst[who] = scores[:, -1]

    def top(self) -> tuple[Int64, Float32]:
        """Documents and scores of all queries, best first, -1 as padding."""
        self._cut(torch.arange(len(self._count), device=self._count.device))
        return self._ids[:, : self._k].cpu().numpy(), self._scores[:, : self._k].cpu().numpy()


def teacher_for(
    exact: Teacher,
    corpus: Vectors,
    state: IndexState,
    transforms: Transforms,
    queries: Float32,
    k: int,
    exclude: Int64 | None,
    rng: np.random.Generator,
) -> Teacher | ListTeacher:
    """The cheapest teacher of these queries that is as good as the exact one, or nearly so.

    Args:
        exact: the exhaustive one.
        corpus: the embeddings.
        state: of the same vectors in the index.
        transforms: those of the index.
        queries: ``(nq, d)``.
        k: neighbours a query.
        exclude: see :meth:`faiss_distill.learning.teacher.Teacher.top_k`.
        rng: source of randomness.
    """
    if len(queries) * corpus.n * corpus.d < WORTH_IT:
        return exact
    sample = np.sort(rng.permutation(len(queries))[:SAMPLED])
    top, _ = exact.top_k(corpus, queries[sample], k, None if exclude is None else exclude[sample])
    lists = Lists(state.signposts, state.assignment, state.coarse_metric, transforms)
    if len(lists.centroids) < MIN_LISTS:
        lists = _lists_of(corpus, exact, rng)
    order = lists.nearest(queries[sample], len(lists.centroids), exact.device)
    where = np.empty_like(order)
    np.put_along_axis(where, order, np.arange(order.shape[1])[None], axis=1)
    needed = np.sort(np.take_along_axis(where, lists.assignment[top], axis=1).ravel())
    probed = int(needed[int(np.ceil(HELD * len(needed))) - 1]) + 1
    lengths = np.bincount(lists.assignment, minlength=len(lists.centroids))
    share = float(lengths[order[:, :probed]].sum(axis=1).mean()) / corpus.n
    cost = share * (corpus.d + SELECTION) / corpus.d
    probed, cost, agreement = exact.world.agreed((probed, cost, float((needed < probed).mean())))
    if cost > SAVING:
        logger.info("teacher: exhaustive; the nearest %d lists would cost %.0f %% of that", probed, 100 * cost)
        return exact
    logger.info(
        "teacher: the nearest %d of %d lists, at about %.0f %% of the cost of all, with %.1f %% of the exact top %d",
        probed, len(lists.centroids), 100 * cost, 100 * agreement, k,
    )  # fmt: skip
    return ListTeacher(exact, lists, probed, agreement, cost)


def _lists_of(corpus: Vectors, exact: Teacher, rng: np.random.Generator) -> Lists:
    """Lists where an index has none: about as many as each then has documents."""
    nlist = int(np.sqrt(corpus.n))
    rows = np.sort(rng.permutation(corpus.n)[: 64 * nlist])
    ip = exact.metric is Metric.INNER_PRODUCT
    means = faiss.Kmeans(corpus.d, nlist, niter=ROUNDS, seed=int(rng.integers(2**31)), max_points_per_centroid=64)
    means.train(corpus.take(rows))
    centroids = exact.world.agreed(np.asarray(means.centroids, dtype=np.float32))
    lists = Lists(centroids, np.empty(0, dtype=np.int64), Metric.L2, lambda x: x)
    blocks = corpus.blocks(exact.block_rows, exact.world.share(corpus.n))
    own = np.concatenate([lists.nearest(block, 1, exact.device)[:, 0] for _, block in blocks])
    metric = Metric.INNER_PRODUCT if ip or exact.normalize else Metric.L2
    return replace(lists, assignment=exact.world.gathered(own, corpus.n), metric=metric)
