"""Whether a tuned index still finds what it found: for later queries, and of later documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from faiss_distill.checks import integer
from faiss_distill.config import DistillConfig
from faiss_distill.data.ids import as_ids
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import QuerySet, probing, search
from faiss_distill.index.registry import open_index
from faiss_distill.index.sources import as_index
from faiss_distill.integrations import stores
from faiss_distill.learning.teacher import Teacher
from faiss_distill.render.content import Column, Section
from faiss_distill.render.result import Result
from faiss_distill.state import Float32
from faiss_distill.tuning.bootstrap import percentile_interval
from faiss_distill.tuning.gate import told
from faiss_distill.tuning.task import open_queries, open_task

if TYPE_CHECKING:
    from faiss_distill.tuning.parameters import TunedParameters
    from faiss_distill.typing import FaissIndex, IdsLike, VectorsLike

WORTH = 0.02
"""Of overlap@10: what must be lost for another tuning to be worth it. Chosen on validation queries, see
``benchmarks/notes.md``, 29."""
CONFIDENCE = 0.95
"""Of the interval of what is lost."""
MIN_QUERIES = 50
"""Fewer tell nothing."""


@dataclass(frozen=True)
class Loss:
    """What an index finds less of than it should, as overlap@10.

    Attributes:
        n: new queries, or new documents.
        usual: of the queries that judged the tuning; or the share that is found of their neighbours among the old
            documents.
        found: of the new queries; or the share that is found of the neighbours among the new documents.
        lost: what the overlap@10 would gain if new ones were found as old ones are.
        interval: its bootstrap interval, at a confidence of 95 %.
    """

    n: int
    usual: float
    found: float
    lost: float
    interval: tuple[float, float]

    @property
    def matters(self) -> bool:
        """Whether it is more than chance and than ``WORTH``."""
        return self.interval[0] > 0 and self.lost >= WORTH


@dataclass(frozen=True, repr=False)
class Drift(Result):
    """Whether another tuning is worth it. ``print(drift)`` shows it as a table.

    Attributes:
        retune: whether it is.
        reason: why, in a sentence.
        nprobe: lists probed.
        n_validation: queries that judged the tuning and are what new ones are compared with.
        queries: what is lost with the new queries, see :class:`~faiss_distill.tuning.drift.Loss`; None without any.
        documents: what is lost with the new documents; None without any.
    """

    retune: bool
    reason: str
    nprobe: int
    n_validation: int
    queries: Loss | None
    documents: Loss | None

    @property
    def verdict(self) -> str:
        """Whether another tuning is worth it, and why."""
        return f"{'Retune' if self.retune else 'No need to retune'}: {self.reason}"

    def sections(self) -> tuple[Section, ...]:
        """A table and the verdict."""
        rows: list[list[str | float | tuple[float, ...]]] = [
            [name, f"{loss.n}", (loss.usual, loss.found), told(loss.lost, loss.interval)]
            for name, loss in (("queries", self.queries), ("documents", self.documents))
            if loss is not None
        ]
        columns = [
            Column("new", left=True), Column("number"), Column("overlap@10, old → new", ".3f"),
            Column("lost, of the overlap@10 of all"),
        ]  # fmt: skip
        title = f"{self.n_validation} validation queries, nprobe {self.nprobe}"
        return Section(self.verdict), Section(title, columns=columns, rows=rows)


def drift(
    parameters: TunedParameters,
    index: FaissIndex,
    embeddings: VectorsLike | None,
    queries: VectorsLike | None,
    ids: IdsLike | None,
    new_ids: IdsLike | None,
    nprobe: int | None,
    seed: int,
    progress: bool,
) -> Drift:
    """See :meth:`TunedParameters.drift`.

    Raises:
        UnsupportedIndexError: the index can't be tuned.
        InputError: something else about the arguments is wrong.
    """
    if queries is None and new_ids is None:
        raise InputError("queries", "new queries, or new_ids= of new documents, or both", "neither")
    if parameters.validation_queries is None:
        raise InputError(
            "parameters", "those of a tuning with queries", "those of one that used documents as queries",
            "pass the queries that there are now to distill: they are worth another tuning",
        )  # fmt: skip
    passed = stores.opened(index, None, embeddings, queries, ids, progress=progress)
    queries = passed.queries
    with passed.explained():
        adapter = open_index(as_index(passed.index))
        task = open_task(adapter, passed.embeddings, passed.ids, partial=False, queries=queries)
    parameters.check_fits(adapter, task.state)
    rows = DistillConfig.block_rows
    own = parameters.config.nprobe or adapter.nprobe
    probed = integer("nprobe", own if nprobe is None else nprobe, 1, adapter.nlist)
    if task.corpus.n < 10:
        raise InputError("index", "at least 10 vectors", str(task.corpus.n))
    seed = integer("seed", seed, 0)
    task.corpus.check_finite(rows, progress)
    with passed.explained():
        task.check(parameters.validation_queries, np.random.default_rng(seed), tunes=False)
    teacher = Teacher(adapter.metric, adapter.normalizes, rows, progress=progress)

    def hits(vectors: Float32) -> tuple[Any, Any]:
        """Ids of the exact top 10, and which of them are found, both ``(nq, 10)``."""
        truth = task.sample_ids[teacher.top_k(task.corpus, vectors, 10)[0]]
        found = search(adapter, QuerySet(vectors, truth), 10, probing(adapter, probed))
        return truth, (truth[:, :, None] == found[:, None, :]).any(axis=2)

    rng = np.random.default_rng(seed)
    truth, hit = hits(parameters.validation_queries)
    of_queries = of_documents = None
    if queries is not None:
        opened = open_queries(adapter, queries, "queries", rows)
        if opened.n < MIN_QUERIES:
            raise InputError("queries", f"at least {MIN_QUERIES}", str(opened.n), "fewer tell nothing")
        asked = opened.take(np.sort(rng.permutation(opened.n)[: DistillConfig.max_queries]))
        of_queries = _of_queries(hit.mean(axis=1), hits(asked)[1].mean(axis=1), rng)
    if new_ids is not None:
        new = as_ids(new_ids, "new_ids")
        known = np.isin(new, task.sample_ids)
        if new.ndim != 1 or not known.all() or not 0 < len(np.unique(new)) < task.state.n:
            raise InputError("new_ids", "some of the ids in the index, but not all", f"{new.size}, {known.sum()} in it")
        of_documents = _of_documents(len(new), hit, np.isin(truth, new), rng)
    reasons = _reasons(of_queries, of_documents)
    lost = [loss for loss in (of_queries, of_documents) if loss is not None and loss.matters]
    return Drift(bool(lost), reasons, probed, len(hit), of_queries, of_documents)


def _of_queries(usual: Any, found: Any, rng: np.random.Generator) -> Loss:
    """Other queries of the same index: means of two samples, overlap@10 of each query in ``usual`` and ``found``."""

    def lost(old: Any, new: Any, axis: int = -1) -> Any:
        return old.mean(axis=axis) - new.mean(axis=axis)

    interval = percentile_interval((usual, found), lost, CONFIDENCE, rng)
    return Loss(len(found), float(usual.mean()), float(found.mean()), float(lost(usual, found)), interval)


def _of_documents(n: int, hit: Any, new: Any, rng: np.random.Generator) -> Loss:
    """Other documents for the same queries: ``hit`` and ``new``, bool ``(nq, 10)``, of each of the exact top 10."""
    hits, of_new, new_hits = hit.sum(axis=1), new.sum(axis=1), (hit & new).sum(axis=1)

    def usual(hits: Any, of_new: Any, new_hits: Any, axis: int = -1) -> Any:
        there = np.maximum((10 - of_new).sum(axis=axis), 1)
        return (hits - new_hits).sum(axis=axis) / there

    def lost(hits: Any, of_new: Any, new_hits: Any, axis: int = -1) -> Any:
        return usual(hits, of_new, new_hits, axis) - hits.mean(axis=axis) / 10

    counted = hits, of_new, new_hits
    found = float(new_hits.sum() / max(1, of_new.sum()))
    interval = percentile_interval(counted, lost, CONFIDENCE, rng, paired=True)
    return Loss(n, float(usual(*counted)), found, float(lost(*counted)), interval)


def _reasons(queries: Loss | None, documents: Loss | None) -> str:
    said = []
    for loss, what in ((queries, "the new queries"), (documents, "the new documents")):
        if loss is not None:
            lost = f"{told(loss.lost, loss.interval)} of the overlap@10 is lost with {what}"
            said.append(lost if loss.matters else f"{lost}, which is within chance or below {WORTH}")
    return "; ".join(said)
