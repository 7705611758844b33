"""The report of a tuning run: before and after, as data that is printed, written as JSON and plotted."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from faiss_distill.config import DistillConfig, Encoding
from faiss_distill.data.stand_ins import Comparison
from faiss_distill.evaluation.frame import as_frame
from faiss_distill.evaluation.measure import Evaluation, compared, series_of
from faiss_distill.render.content import FACTS, Column, Page, Panel, Picture, Role, Section, Series
from faiss_distill.render.plot import draw
from faiss_distill.render.result import Result
from faiss_distill.state import Int64
from faiss_distill.tuning.parameters import TunedParameters

if TYPE_CHECKING:
    import pandas as pd

    from faiss_distill.typing import FaissIndex, PathLike

SHOWN = 8
"""Queries that won the most, and as many that lost the most, at most."""
CERTAIN = (
    "Bars are intervals of 95 % over the held-out queries; the gain itself is judged query by query, which is finer."
)
NOT_KNOWN = (
    "documents were used as queries, and judge as well: what real queries gain is not known; as few as 20 of them, "
    "passed as validation_queries, would judge instead"
)
FOUND = {"overlap_at_10": "overlap@10 with the exact top 10", "nearest_in_10": "exact nearest in the first 10"}


def curves(before: Evaluation, after: Evaluation, title: str = "", certain: bool = False) -> Picture:
    """What is :data:`FOUND` against codes scanned; if ``certain``, with intervals of 95 % where each query is known."""

    def curve(role: Role, evaluation: Evaluation, found: str) -> Series:
        labels = [f"{point.nprobe}" for point in evaluation.points]
        within = evaluation.intervals if certain and found == "overlap_at_10" else ()
        return series_of(role, evaluation.points, "codes_scanned", found, name=role, labels=labels, within=within)

    at = "codes scanned per query (numbers: nprobe)"
    panels = [
        Panel(at, label, [curve("before", before, found), curve("after", after, found)])
        for found, label in FOUND.items()
    ]
    return Picture(panels, title or f"Codes of {before.code_size} bytes, before and after")


def versions() -> dict[str, str]:
    """Of Python and of the packages that take part in a tuning, which have been imported."""
    packages = {name: str(sys.modules[name].__version__) for name in ("faiss_distill", "faiss", "torch", "numpy")}
    return {"Python": platform.python_version()} | packages


@dataclass(frozen=True, repr=False)
class DistillReport(Result):
    """The outcome of a tuning run. ``print(report)`` shows it as a table.

    Attributes:
        kept: whether the result was kept. If not, the index is exactly as it was.
        reason: why, in a sentence.
        index: the faiss index to search with from now on: the one that was passed, tuned in place or not kept; or with
            ``inplace=False``, if kept, the new one. It lives as long as the report. Not part of :meth:`to_dict`: None
            in a report that was read by :meth:`from_json`.
        description: the index's classes from the outside in; ``"index"`` in :meth:`to_dict`.
        metric: ``"inner_product"`` or ``"l2"``.
        n: vectors in the index.
        n_embeddings: of these, the vectors whose embeddings were passed; before and after are measured among them.
        query_source: of those trained on: ``"queries"``, or ``"documents"`` where there were none and documents were
            used.
        n_train: queries trained on, each once, however often it was passed.
        n_stand_ins: of these, documents that were used as queries.
        n_selection: queries that chose the epoch.
        n_validation: other queries, each once and none a copy of one trained on, on which before and after are
            measured.
        before: the index as it was.
        after: the tuned index; if not kept, what it would have been.
        gain: mean difference of overlap@10 at the judged nprobe, after minus before.
        interval: its paired bootstrap interval at ``config.confidence``.
        temperature: what scores were divided by in training.
        teacher: who found the neighbours of the training queries: ``"exhaustive"`` search, that of the nearest
            ``"lists"``, or whoever found those ``"given"``.
        teacher_lists: how many lists were looked into for a query; None if it was not by lists.
        teacher_cost: the estimate by which it was chosen: multiplications as a share of exhaustive search's.
        teacher_agreement: share of the exact Top-K of 500 training queries that it found. Truth is always exact.
        history: for each epoch (0 is the start, with lists and codes chosen anew) its training loss, and the overlap@10
            of the selection queries and the codes that they scan.
        best_epoch: the epoch whose centroids and codebooks were taken: of those that scan no more codes than the index
            did, the last that is not significantly worse than the best one before it; 0 is the start.
        query_encoder: the trained query encoder, if one was passed and the result was kept: search with its embeddings.
            In :meth:`to_dict`, and in a report read from JSON, the name of its class.
        compiled: whether query-aware codes were searched for by the extra ``fast``; the codes are the same without it.
        seconds: wall-clock seconds by stage: ``check``, ``teacher``, ``judging``, ``training``, ``lists``, ``codes``,
            ``commit`` and the ``total``.
        seconds_tenfold: the same, estimated for ten times as many vectors with as many queries and lists.
        config: the options.
        judged_by: what before and after are measured on: ``"queries"``, or ``"documents"`` used as queries where no
            real ones were passed. What real queries gain is then not known.
        compared: where documents were needed and real queries passed, how those that judge compare with documents: the
            shares of all pairs of which the query lies further ``outside``, and has its neighbours ``further`` away.
            Beyond .9 and .6 they are another distribution. Otherwise None.
        versions: of Python and of the packages that took part.
        held_out: the queries that ``n_validation`` counts, as rows of the array that was passed: of
            ``validation_queries``, of ``queries``, or of the embeddings; int64 ``(n_validation,)``. Not part of
            :meth:`to_dict`; empty if read from JSON.
        list_sizes: how many vectors each list holds, before and after, int64 ``(nlist,)`` each. Not part of
            :meth:`to_dict`; empty if read from JSON.
        read_from: the file that the index was read from, if its path was passed; it is as it was.
        store: of a vector store, where in it the index is and where embeddings came from.
        applied: whether centroids and codebooks were those of :class:`TunedParameters` to start from.
        router_bytes: bytes that the tuned index takes beyond those before, for a router that it was given; else 0.
        parameters: what was learned, to be put into other indexes of the same training, if the result was kept and no
            query encoder learned along. Not part of :meth:`to_dict`; None if read from JSON.
    """

    kept: bool
    reason: str
    index: FaissIndex
    description: str
    metric: str
    n: int
    n_embeddings: int
    query_source: str
    n_train: int
    n_stand_ins: int
    n_selection: int
    n_validation: int
    before: Evaluation
    after: Evaluation
    gain: float
    interval: tuple[float, float]
    temperature: float
    teacher: str
    teacher_lists: int | None
    teacher_cost: float
    teacher_agreement: float
    history: tuple[dict[str, float | None], ...]
    best_epoch: int
    query_encoder: nn.Module | str | None
    compiled: bool
    seconds: dict[str, float]
    seconds_tenfold: dict[str, float]
    config: DistillConfig
    versions: dict[str, str]
    held_out: Int64
    list_sizes: tuple[Int64, Int64]
    read_from: str | None = None
    store: str | None = None
    applied: bool = False
    router_bytes: int = 0
    judged_by: str = "queries"
    compared: Comparison | None = None
    parameters: TunedParameters | None = None

    @property
    def verdict(self) -> str:
        """Whether the result was kept, and why."""
        return f"{'Kept' if self.kept else 'NOT kept, the index is as it was'}: {self.reason}"

    def sections(self) -> tuple[Section, ...]:
        """The table, with what a reader needs to judge it."""
        before, after, listed = self.before, self.after, self.before.nlist > 1
        imbalance = f"list imbalance {before.imbalance:.2f} → {after.imbalance:.2f} (1 is even), " if listed else ""
        size = f"bytes of a code {before.code_size} → {after.code_size}"
        if self.router_bytes:
            size += f", {self.router_bytes} bytes more for a router: {self.router_bytes / self.n:.1f} a vector"
        how = {"codes": " (with numba)" if self.compiled else ""}
        seconds = "seconds: " + ", ".join(f"{k} {v:.1f}{how.get(k, '')}" for k, v in self.seconds.items())
        tenfold = "seconds with ten times the vectors, about: "
        tenfold += ", ".join(f"{k} {v:.0f}" for k, v in self.seconds_tenfold.items())
        part = "" if self.n_embeddings == self.n else f", measured among the {self.n_embeddings} embeddings passed"
        return (
            Section(
                f"{self.description}, {self.metric}, {self.n} vectors, codes of {before.code_size} bytes{part}",
                notes=self._made(),
            ),
            compared(
                before, after, own=f"judged here, nprobe {before.own_nprobe}; small changes elsewhere may be chance"
            ),
            Section(notes=[imbalance + size, seconds, tenfold]),
        )

    def _made(self) -> list[str]:
        """How it came about."""
        changed = self.kept and self.config.encoding is not Encoding.FROZEN
        only_codes = changed and not self.best_epoch and not self.applied
        unwritten = self.kept and self.read_from is not None
        found = self.compared
        otherwise = "those that were added were moved to where queries are"
        if self.query_source == "documents":
            otherwise = "pass queries= to train on them"
        trained = f"{self.n_train} {self.query_source}"
        if self.query_source == "queries" and self.n_stand_ins:
            trained = f"{self.n_train - self.n_stand_ins} queries and {self.n_stand_ins} documents used as queries"
        how = f"trained on {trained}; "
        if len(self.history) > 1:
            how += f"epoch {self.best_epoch} of {len(self.history) - 1}, chosen by {self.n_selection} others; "
        elif self.applied:
            how = f"centroids and codebooks as they were passed; lists and codes chosen for {trained}; "
        by = f"what {self.teacher_lists} lists hold (about {self.teacher_cost:.0%} of the cost of exact search)"
        by = "what was passed" if self.teacher == "given" else by
        taught = f"taught by {by}: {self.teacher_agreement:.1%} of the exact neighbours"
        return [
            self.verdict,
            f"(in brackets: the {self.config.confidence:.0%} interval of the gain)",
            *([] if self.kept else ["(in the table: before → what the tuned index would have found)"]),
            how + f"measured on {self.n_validation} {self._judges}",
            *([NOT_KNOWN] if self.judged_by == "documents" else []),
            *([f"{found}: {otherwise}"] if found is not None and found.unlike else []),
            *([] if self.teacher == "exhaustive" else [taught]),
            *([] if self.store is None else [self.store]),
            *([f"{self.read_from} is as it was: write report.index, which holds the result"] if unwritten else []),
            *(["search with the embeddings of report.query_encoder"] if self.query_encoder is not None else []),
            *(["centroids and codebooks are those of before: only lists and codes are new"] if only_codes else []),
        ]

    @property
    def _judges(self) -> str:
        """What judged, beside what was trained on."""
        return "more" if self.judged_by == self.query_source else "real queries"

    def page(self) -> Page:
        """What there is to see: recall, gain by query, training, lists and time, as far as they are known."""
        what, table, small = self.sections()
        changed = {f.name: getattr(self.config, f.name) for f in fields(DistillConfig)}
        changed = {k: getattr(v, "value", v) for k, v in changed.items() if v != getattr(DistillConfig(), k)}
        facts = {"options": ", ".join(f"{k}={v!r}" for k, v in changed.items()) or "the defaults"}
        facts["versions"] = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        parts = [
            replace(what, notes=what.notes[2:]),  # without the verdict
            replace(
                curves(self.before, self.after, "Recall against cost", certain=True),
                caption=CERTAIN if self.held_out.size else "",
            ),
            table,
            *self._by_query(),
            *self._training(),
            *self._lists(),
            self._time(),
            Section("More", columns=FACTS, rows=[*facts.items()], notes=small.notes[:1]),
        ]
        return Page(f"{self.description}: report of faiss_distill", self.verdict, parts, good=self.kept)

    def _by_query(self) -> tuple[Picture | Section, ...]:
        """Who won and who lost, at the judged nprobe, if that is known."""
        if not self.held_out.size:
            return ()
        gain = self.after.overlap - self.before.overlap
        order = np.argsort(-gain, kind="stable")
        won, lost = int((gain > 0).sum()), int((gain < 0).sum())
        places, sorted_gain, above = [i + 1.0 for i in range(len(gain))], gain[order].tolist(), len(gain) - lost
        bars = [
            Series("won", places[:won], sorted_gain[:won], name=f"{won} won", drawn="bars"),
            Series("lost", places[above:], sorted_gain[above:], name=f"{lost} lost", drawn="bars"),
        ]
        caption = f"Each of {len(gain)} held-out queries, sorted; {len(gain) - won - lost} are as before."
        panel = Panel("queries, from the largest gain to the largest loss", "gain in overlap@10", bars, log=False)
        columns = [Column("", left=True), Column("row of the query", "d"), Column("overlap@10", ".1f")]
        rows = [*order[: min(won, SHOWN)], *order[::-1][: min(lost, SHOWN)][::-1]]
        cells = [
            (
                "won" if gain[i] > 0 else "lost",
                int(self.held_out[i]),
                (float(self.before.overlap[i]), float(self.after.overlap[i])),
            )
            for i in rows
        ]
        return (
            Picture([panel], "Gain by query", caption),
            Section(
                columns=columns, rows=cells, notes=[f"Up to {SHOWN} that won the most, and as many that lost the most."]
            ),
        )

    def _training(self) -> tuple[Picture, ...]:
        """Loss and overlap@10 by epoch, if there were any."""
        if len(self.history) < 2:
            return ()
        epochs = [float(h["epoch"] or 0) for h in self.history]
        found = [float(h["overlap_at_10"] or 0) for h in self.history]
        losses = [float(h["loss"]) for h in self.history if h["loss"] is not None]
        panels = [
            Panel("epoch", "training loss", [Series("all", epochs[-len(losses) :], losses)], log=False),
            Panel("epoch", "overlap@10 of selection queries", [Series("after", epochs, found)], log=False),
        ]
        caption = (
            f"Epoch {self.best_epoch} was taken: of those that scan no more codes than the index did, the last that is "
            f"not significantly worse than the best one before it. Epoch 0 is before training, but with lists and "
            f"codes chosen anew."
        )
        return (Picture(panels, "Training", caption),)

    def _lists(self) -> tuple[Picture, ...]:
        """How long the lists are, if there are several and that is known."""
        if not self.list_sizes[0].size or self.before.nlist < 2:
            return ()
        sizes = [np.sort(each)[::-1].astype(float).tolist() for each in self.list_sizes]
        places = [i + 1.0 for i in range(len(sizes[0]))]
        roles: tuple[Role, Role] = "before", "after"
        series = [Series(role, places, size, name=role, drawn="line") for role, size in zip(roles, sizes, strict=True)]
        caption = f"Imbalance {self.before.imbalance:.2f} before and {self.after.imbalance:.2f} after; 1 is all equal."
        return (
            Picture([Panel("lists, from the longest on", "vectors in a list", series, log=False)], "Lists", caption),
        )

    def _time(self) -> Section:
        rows = [(stage, self.seconds[stage], self.seconds_tenfold[stage]) for stage in self.seconds]
        columns = [
            Column("stage", left=True),
            Column("seconds", ".1f"),
            Column("with ten times the vectors, about", ".0f"),
        ]
        notes = ["Codes were chosen with numba."] if self.compiled else []
        return Section("Time", columns=columns, rows=rows, notes=notes)

    def picture(self) -> Picture:
        """Recall against codes scanned, before and after."""
        return curves(self.before, self.after)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts, without the per-query arrays and the index."""
        out = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "description"}
        out["index"] = self.description
        out |= {"before": self.before.to_dict(), "after": self.after.to_dict(), "history": list(self.history)}
        out["config"] = {k: getattr(v, "value", v) for k, v in asdict(self.config).items()}
        out["compared"] = None if self.compared is None else asdict(self.compared)
        for name in ("parameters", "held_out", "list_sizes"):
            del out[name]
        if not isinstance(self.query_encoder, str | None):
            out["query_encoder"] = type(self.query_encoder).__name__
        return out

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame with a row for each nprobe before and after, which the column ``when`` tells apart.

        The other columns are the fields of :class:`~faiss_distill.evaluation.point.OperatingPoint`, without those that
        no row has, such as those of labels.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return as_frame(
            (point, {"when": when})
            for when, evaluation in (("before", self.before), ("after", self.after))
            for point in evaluation.points
        )

    @classmethod
    def _written(cls, content: dict[str, Any]) -> dict[str, Any]:
        return {"description" if name == "index" else name: value for name, value in content.items()}

    @classmethod
    def _not_written(cls, known: dict[str, Any]) -> dict[str, Any]:
        none = np.empty(0, dtype=np.int64)
        return {"index": None, "held_out": none, "list_sizes": (none, none), "parameters": None}

    def plot(self, path: PathLike) -> None:
        """Draw recall against codes scanned, before and after, into ``path``, ``.png``, ``.svg`` or ``.pdf``.

        Raises:
            InputError: another suffix, or no such folder.
            MissingDependencyError: matplotlib is not installed.
        """
        draw(self.picture(), path)
