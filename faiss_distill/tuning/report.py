"""Before and after, as a table, JSON and a plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from faiss_distill.config import DistillConfig, Encoding
from faiss_distill.evaluation.measure import Evaluation, table
from faiss_distill.files import replacing
from faiss_distill.render.plot import check_plot, log_axis, new_figure


def plot(before: Evaluation, after: Evaluation, path: str | Path, title: str = "") -> None:
    """Draw overlap@10 and nearest-in-10 against codes scanned into ``path``, ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        InputError: another suffix, or no such folder.
        MissingDependencyError: matplotlib is not installed.
    """
    check_plot(path)
    figure, axes = new_figure(2)
    panels = [("overlap_at_10", "overlap@10 with the exact top 10"), ("nearest_in_10", "exact nearest in the first 10")]
    for ax, (field, label) in zip(axes, panels, strict=True):
        for evaluation, name, style in ((before, "before", "o--"), (after, "after", "o-")):
            points = evaluation.points
            x, y = [p.codes_scanned for p in points], [getattr(p, field) for p in points]
            (line,) = ax.plot(x, y, style, label=name, color="0.45" if name == "before" else "#c0392b")
            for p, px, py in zip(points, x, y, strict=True):
                offset = (0, 7) if name == "after" else (0, -14)
                text = {"ha": "center", "fontsize": 7, "color": line.get_color()}
                ax.annotate(f"{p.nprobe}", (px, py), offset, textcoords="offset points", **text)
        log_axis(ax)
        ax.set(xlabel="codes scanned per query (numbers: nprobe)", ylabel=label)
        ax.margins(y=0.12)
        ax.grid(alpha=0.3)
    axes[0].legend(loc="lower right", frameon=False)
    figure.suptitle(title or f"{before.bytes_per_vector} bytes per vector, before and after", fontsize=11)
    with replacing(path) as new:
        figure.savefig(new, dpi=150)


@dataclass(frozen=True)
class DistillReport:
    """The outcome of a tuning run. ``print(report)`` shows it as a table.

    Attributes:
        kept: whether the result was kept. If not, the index is exactly as it was.
        reason: why, in a sentence.
        index: the faiss index to search with from now on: the one that was passed, tuned in place or not kept; or with
            ``inplace=False``, if kept, the new one. It lives as long as the report.
        description: the index's classes from the outside in; ``"index"`` in :meth:`to_dict`.
        metric: ``"inner_product"`` or ``"l2"``.
        n: vectors in the index.
        n_embeddings: of these, the vectors whose embeddings were passed; before and after are measured among them.
        query_source: ``"queries"``, or ``"documents"`` where documents stood in for them.
        n_train: queries trained on, each once, however often it was passed.
        n_stand_ins: of these, documents that stood in for queries.
        n_selection: queries that chose the best epoch.
        n_validation: other queries, each once and none a copy of one trained on, on which before and after are
            measured.
        before: the index as it was.
        after: the tuned index; if not kept, what it would have been.
        gain: mean difference of overlap@10 at the judged nprobe, after minus before.
        interval: its paired bootstrap interval at ``config.confidence``.
        temperature: what scores were divided by in training.
        history: for each epoch (0 is the start, with lists and codes chosen anew) its training loss, and the overlap@10
            of the selection queries and the codes that they scan.
        best_epoch: the epoch whose centroids and codebooks were taken; 0 if those at the start were best.
        query_encoder: the trained query encoder, if one was passed and the result was kept: search with its embeddings.
        seconds: wall-clock seconds by phase.
        config: the options.
    """

    kept: bool
    reason: str
    index: Any
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
    history: tuple[dict[str, float | None], ...]
    best_epoch: int
    query_encoder: nn.Module | None
    seconds: dict[str, float]
    config: DistillConfig

    def __str__(self) -> str:
        """The table, with what a reader needs to judge it."""
        epochs = len(self.history) - 1
        share = " (documents stood in for queries: the gain on real queries may differ)"
        only_codes = not self.best_epoch and self.config.encoding is not Encoding.FROZEN
        part = "" if self.n_embeddings == self.n else f", measured among the {self.n_embeddings} embeddings passed"
        trained = f"{self.n_train} {self.query_source}"
        if self.query_source == "queries" and self.n_stand_ins:
            trained = f"{self.n_train - self.n_stand_ins} queries and {self.n_stand_ins} documents as more"
        lines = [
            f"{self.description}, {self.metric}, {self.n} vectors of {self.before.bytes_per_vector} bytes{part}",
            f"{'Kept' if self.kept else 'NOT kept, the index is as it was'}: {self.reason}",
            *([] if self.kept else ["(in the table: before → what the tuned index would have found)"]),
            f"trained on {trained}, epoch {self.best_epoch} of {epochs} chosen by "
            f"{self.n_selection} others, measured on {self.n_validation} more"
            + (share if self.query_source == "documents" else ""),
            *(["search with the embeddings of report.query_encoder"] if self.query_encoder is not None else []),
            *(["centroids and codebooks are those of before: only lists and codes are new"] if only_codes else []),
            "",
            table(self.before, self.after),
            *([f"* judged here, nprobe {self.before.own_nprobe}"] if self.before.nlist > 1 else []),
            "",
            (
                f"list imbalance {self.before.imbalance:.2f} → {self.after.imbalance:.2f}, "
                if self.before.nlist > 1
                else ""
            )
            + f"bytes per vector {self.before.bytes_per_vector} → {self.after.bytes_per_vector}",
            "seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in self.seconds.items()),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts, without the per-query arrays and the index."""
        out = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "description"}
        out["index"] = self.description
        out |= {"before": self.before.to_dict(), "after": self.after.to_dict(), "history": list(self.history)}
        out["config"] = {k: getattr(v, "value", v) for k, v in asdict(self.config).items()}
        out["query_encoder"] = None if self.query_encoder is None else type(self.query_encoder).__name__
        return out

    def to_json(self, path: str | Path | None = None) -> str:
        """:meth:`to_dict` as JSON text, also written to ``path`` if one is given."""
        text = json.dumps(self.to_dict(), indent=2)
        if path is not None:
            with replacing(path) as new:
                new.write_text(text + "\n", encoding="utf-8")
        return text

    def plot(self, path: str | Path) -> None:
        """Draw recall against codes scanned, before and after, into ``path``, ``.png``, ``.svg`` or ``.pdf``.

        Raises:
            InputError: another suffix, or no such folder.
            MissingDependencyError: matplotlib is not installed.
        """
        plot(self.before, self.after, path)
