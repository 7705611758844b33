"""What a real faiss search finds, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from faiss_distill.evaluation.frame import as_frame
from faiss_distill.evaluation.point import OperatingPoint
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.index.search_parameters import reranked, searching
from faiss_distill.metrics import all_but, hits, recall, reciprocal_rank
from faiss_distill.render.content import Cell, Column, Role, Section, Series
from faiss_distill.render.result import Result
from faiss_distill.state import Float32, Int64

if TYPE_CHECKING:
    import pandas as pd

NPROBES = (1, 4, 16, 64)


@dataclass(frozen=True)
class QuerySet:
    """Queries with what an exact search finds for them.

    Attributes:
        vectors: as the outer index takes them, float32 ``(nq, d_in)``.
        truth: ids of the exact Top-K, best first, int64 ``(nq, K)`` with ``K >= 10``.
        exclude: an id that query ``i`` must not find (itself, where it is a document), int64 ``(nq,)``, or None.
        relevant: ids of the relevant documents, -1 as padding, int64 ``(nq, r)``, or None.
    """

    vectors: Float32
    truth: Int64
    exclude: Int64 | None = None
    relevant: Int64 | None = None


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """An index at several nprobe.

    Attributes:
        k: depth of the searches.
        own_nprobe: the nprobe it is judged at.
        points: one operating point for each nprobe, ascending.
        overlaps: overlap@10 of each query at each of ``points``, float32 ``(len(points), nq)``. Not part of
            :meth:`to_dict`; of no query if read from JSON.
        imbalance: faiss's imbalance factor of the lists: 1 if all are of one length.
        code_size: bytes of a code.
        nlist: inverted lists; 1 without.
    """

    k: int
    own_nprobe: int
    points: tuple[OperatingPoint, ...]
    overlaps: Float32
    imbalance: float
    code_size: int
    nlist: int

    @property
    def own(self) -> OperatingPoint:
        """The operating point at ``own_nprobe``."""
        return next(p for p in self.points if p.nprobe == self.own_nprobe)

    @property
    def overlap(self) -> Float32:
        """overlap@10 of each query at ``own_nprobe``, float32 ``(nq,)``."""
        return self.overlap_at(self.own_nprobe)

    def overlap_at(self, nprobe: int) -> Float32:
        """overlap@10 of each query at one of the nprobes measured, float32 ``(nq,)``."""
        at = [p.nprobe for p in self.points].index(nprobe)
        return np.asarray(self.overlaps[at], dtype=np.float32)

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Of the overlap@10 at each of ``points``, 95 % by the standard error over queries; none if read from JSON."""
        if not self.overlaps.size:
            return []
        error = 1.96 * self.overlaps.std(axis=1) / np.sqrt(self.overlaps.shape[1])
        return [(p.overlap_at_10 - e, p.overlap_at_10 + e) for p, e in zip(self.points, error.tolist(), strict=True)]

    def at_the_cost_of(self, other: Evaluation) -> Evaluation:
        """What is found here, with the codes scanned, latency and list imbalance of another at the same nprobes."""
        points = tuple(
            replace(p, codes_scanned=o.codes_scanned, latency_ms=o.latency_ms, distances=o.distances)
            for p, o in zip(self.points, other.points, strict=True)
        )
        return replace(self, points=points, imbalance=other.imbalance)

    @property
    def verdict(self) -> str:
        """The overlap@10 at ``own_nprobe``."""
        at = f" at nprobe {self.own_nprobe}" if self.nlist > 1 else ""
        on = f" on {len(self.overlap)} queries" if self.overlaps.size else ""
        return f"overlap@10 {self.own.overlap_at_10:.3f}{at}{on}"

    def sections(self) -> tuple[Section, ...]:
        """A table; the index's own nprobe is starred."""
        return (compared(self),)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, lists and dicts, without the per-query arrays."""
        out = super().to_dict()
        del out["overlaps"]
        return out

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame with a row for each nprobe; in the column ``own``, whether it is ``own_nprobe``.

        The other columns are the fields of :class:`~faiss_distill.evaluation.point.OperatingPoint`, without those that
        no row has, such as those of labels.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return as_frame((point, {"own": point.nprobe == self.own_nprobe}) for point in self.points)

    @classmethod
    def _not_written(cls, known: dict[str, Any]) -> dict[str, Any]:
        return {"overlaps": np.empty((len(known.get("points", ())), 0), dtype=np.float32)}


def columns_of(evaluated: OperatingPoint, k: int) -> dict[str, Column]:
    """What a table of such points shows, by field."""
    columns = {
        "overlap_at_10": Column("overlap@10", ".3f"),
        "nearest_in_10": Column("nearest in 10", ".3f"),
        "recall_at_k": Column(f"recall@{k}", ".3f"),
        "codes_scanned": Column("codes scanned", ".0f"),
        "distances": Column("distances", ".0f"),
        "latency_ms": Column("ms/query", ".3f"),
    }
    if evaluated.mrr_at_10 is not None:
        columns |= {
            "mrr_at_10": Column("MRR@10 (labels)", ".3f"),
            "label_recall_at_10": Column("R@10 (labels)", ".3f"),
            "label_recall_at_k": Column(f"R@{k} (labels)", ".3f"),
        }
    return columns


def compared(*evaluations: Evaluation, own: str = "the index's own nprobe") -> Section:
    """One evaluation, or two of the same queries, as a table, where ``own`` says what is starred: ``own_nprobe``.

    Two say nothing of latency: they were measured minutes apart, on a machine that has other work.
    """
    first = evaluations[0]
    listed = first.nlist > 1
    columns = columns_of(first.own, first.k)
    del columns["distances"]
    if len(evaluations) > 1:
        del columns["latency_ms"]
    rows: list[list[Cell]] = []
    for points in zip(*(evaluation.points for evaluation in evaluations), strict=True):
        nprobe = points[0].nprobe
        star = "*" if nprobe == first.own_nprobe else " "
        cells = [tuple(getattr(point, name) for point in points) for name in columns]
        rows.append([*([f"{nprobe}{star}"] if listed else []), *cells])
    starred = [f"* {own}"] if listed else []
    return Section(columns=[*([Column("nprobe")] if listed else []), *columns.values()], rows=rows, notes=starred)


def series_of(role: Role, points: Sequence[OperatingPoint], x: str, y: str, **shown: Any) -> Series:
    """Two fields of such points, to draw."""
    return Series(role, [getattr(point, x) for point in points], [getattr(point, y) for point in points], **shown)


def measure(adapter: IndexAdapter, queries: QuerySet, own_nprobe: int, nprobes: Iterable[int] = NPROBES) -> Evaluation:
    """Search the index at several nprobe and compare with the exact results.

    Args:
        adapter: the index; not changed, see :func:`~faiss_distill.index.search_parameters.searching`.
        queries: with ``truth`` of depth K, which is also the depth of the searches.
        own_nprobe: the nprobe to judge at; always measured.
        nprobes: others to measure; those above ``nlist`` are left out; without lists nprobe is 1.
    """
    wanted = sorted({own_nprobe, *(p for p in nprobes if p <= adapter.nlist)})
    measured = {nprobe: measure_point(adapter, queries, probing(adapter, nprobe)) for nprobe in wanted}
    return Evaluation(
        k=queries.truth.shape[1],
        own_nprobe=own_nprobe,
        points=tuple(point for point, _ in measured.values()),
        overlaps=np.stack([overlap for _, overlap in measured.values()]),
        imbalance=adapter.imbalance,
        code_size=adapter.code_size,
        nlist=adapter.nlist,
    )


def probing(adapter: IndexAdapter, nprobe: int) -> dict[str, float]:
    """The parameters of a search at one nprobe: none where there is one list."""
    return {"nprobe": nprobe} if adapter.nlist > 1 else {}


def measure_point(
    adapter: IndexAdapter, queries: QuerySet, values: Mapping[str, float], parameters: str = ""
) -> tuple[OperatingPoint, Float32]:
    """Search the index at ``values`` of its parameters and its own others, which ``parameters`` is a note of.

    Returns:
        The operating point, and the overlap@10 of each query, float32 ``(nq,)``.
    """
    depth = queries.truth.shape[1]
    start = time.perf_counter()
    found = search(adapter, queries, depth, values)
    seconds = time.perf_counter() - start
    # A refinement re-ranks as many as are asked for, so its first 10 are those of a search for 10.
    first = search(adapter, queries, 10, values) if adapter.refines else found[:, :10]
    cost = adapter.cost(queries.vectors, values)
    overlap = recall(first, queries.truth[:, :10])
    labels = queries.relevant
    found_of, first_of = found, first
    if labels is not None:  # queries without a label say nothing
        labelled = (labels != -1).any(axis=1)
        labels, found_of, first_of = labels[labelled], found[labelled], first[labelled]
        labels = labels if len(labels) else None
    point = OperatingPoint(
        nprobe=int(values.get("nprobe", adapter.nprobe)),
        overlap_at_10=float(overlap.mean()),
        nearest_in_10=float(hits(first, queries.truth[:, :1]).mean()),
        recall_at_k=float(recall(found, queries.truth[:, :10]).mean()),
        codes_scanned=cost.codes / len(found),
        latency_ms=1000 * seconds / len(found),
        mrr_at_10=None if labels is None else float(reciprocal_rank(first_of, labels).mean()),
        label_recall_at_10=None if labels is None else float(recall(first_of, labels).mean()),
        label_recall_at_k=None if labels is None else float(recall(found_of, labels).mean()),
        distances=sum(cost) / len(found) + reranked(adapter.index, 10, values),
        parameters=parameters,
    )
    return point, overlap


def search(adapter: IndexAdapter, queries: QuerySet, k: int, values: Mapping[str, float]) -> Int64:
    """The first ``k`` ids ``(nq, k)`` of a search at ``values``, -1 as padding, without those that queries exclude."""
    excluded = queries.exclude is not None
    with searching(adapter.index, values) as params:
        found = np.asarray(adapter.index.search(queries.vectors, k + excluded, params=params)[1])
    return found if queries.exclude is None else found[all_but(found, queries.exclude)].reshape(-1, k)
