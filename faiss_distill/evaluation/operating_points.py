"""What a search finds and costs over its parameters: the Pareto front, and the cheapest point that finds enough."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from faiss.contrib.evaluation import OperatingPointsWithRanges

from faiss_distill.checks import LARGEST, number
from faiss_distill.errors import InputError
from faiss_distill.evaluation.measure import OperatingPoint, QuerySet, columns_of, lined_up, measure_point
from faiss_distill.files import replacing
from faiss_distill.index.registry import Adapter
from faiss_distill.index.search_parameters import ranges, set_parameters, text_of
from faiss_distill.progress import counted
from faiss_distill.render.plot import check_plot, log_axis, new_figure

COSTS = {"distances": "distances computed per query", "latency_ms": "milliseconds per query"}
QUALITIES = tuple(
    f.name for f in fields(OperatingPoint) if f.name.startswith(("overlap", "nearest", "recall", "mrr", "label"))
)


@dataclass(frozen=True)
class OperatingPoints:
    """Settings of an index's search. ``print(points)`` shows the Pareto front.

    Attributes:
        index: classes from the outside in.
        k: depth of the searches.
        quality: what counts as found, a field of :class:`~faiss_distill.evaluation.measure.OperatingPoint`.
        cost: what it costs, ``"distances"`` or ``"latency_ms"``.
        points: those measured, cheapest first.
        front: the Pareto front, cheapest first: no other point finds as much at as low a cost.
    """

    index: str
    k: int
    quality: str
    cost: str
    points: tuple[OperatingPoint, ...]
    front: tuple[OperatingPoint, ...]

    def cheapest(self, at_least: float) -> OperatingPoint:
        """The cheapest point whose ``quality`` is ``at_least`` so much: over nprobe alone, that of the smallest nprobe.

        Raises:
            InputError: none is.

        Examples:
            >>> at = [OperatingPoint(n, r, 0, 0, c, 0, distances=c) for n, r, c in ((1, 0.4, 90), (2, 0.5, 170))]
            >>> points = OperatingPoints("IndexIVFPQ", 100, "overlap_at_10", "distances", tuple(at), tuple(at))
            >>> points.cheapest(0.45).nprobe
            2
        """
        at_least = number("at_least", at_least, "a number", -LARGEST, LARGEST)
        for point in self.front:
            if getattr(point, self.quality) >= at_least:
                return point
        best = self.front[-1]
        raise InputError(
            f"at_least: expected at most the {self.title} of {getattr(best, self.quality):.3f} that is reached with "
            f"{best.parameters or 'this index'}, got {at_least}; to find more, try other parameters, longer codes or a "
            f"refinement"
        )

    def set_on(self, index: Any, at_least: float) -> OperatingPoint:
        """Set the parameters of :meth:`cheapest` on an index; they are written with it to a file.

        Args:
            index: that which was measured, or one like it.
            at_least: as in :meth:`cheapest`.

        Returns:
            The operating point.

        Raises:
            InputError: no point finds so much, or the index has no such parameters; it is as it was.
        """
        point = self.cheapest(at_least)
        set_parameters(index, point.parameters)
        return point

    def __str__(self) -> str:
        """The front as a text table."""
        columns = columns_of(self.points[0], self.k)
        at = next(i for i, (_, name, _) in enumerate(columns) if name == "codes_scanned") + 1
        columns.insert(at, ("distances", "distances", ".0f"))
        rows = [["parameters", *(title for title, _, _ in columns)]]
        for point in self.front:
            rows.append([point.parameters or "none", *(f"{getattr(point, name):{f}}" for _, name, f in columns)])
        first = [row[0] for row in rows]
        width = max(map(len, first))  # names to the left, numbers to the right
        numbers = lined_up([row[1:] for row in rows]).splitlines()
        table = "\n".join(f"{name.ljust(width)}  {line}" for name, line in zip(first, numbers, strict=True))
        return (
            f"{self.index}: {self.title} against {self.cost}, the {len(self.front)} of {len(self.points)} operating "
            f"points that no other beats\n\n{table}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts."""
        return asdict(self)

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def plot(self, path: str | Path) -> None:
        """Draw ``quality`` against distances and against latency into ``path``, ``.png``, ``.svg`` or ``.pdf``.

        Raises:
            InputError: another suffix, or no such folder.
            MissingDependencyError: matplotlib is not installed.
        """
        check_plot(path)
        figure, axes = new_figure(2)
        for ax, (cost, label) in zip(axes, COSTS.items(), strict=True):
            for points, color in ((self.points, "0.7"), (self.front, "#c0392b")):
                style = "o-" if points is self.front and cost == self.cost else "o"
                xy = [(getattr(p, cost), getattr(p, self.quality)) for p in points]
                ax.plot(*zip(*xy, strict=True), style, color=color, markersize=4)
            log_axis(ax)
            ax.set(xlabel=label, ylabel=self.title)
            ax.margins(x=0.12, y=0.12)
            ax.grid(alpha=0.3)
            figure.draw_without_rendering()  # which settles where points are
            last = None
            for p in self.front:
                at = getattr(p, cost), getattr(p, self.quality)
                pixel = ax.transData.transform(at)
                if last is None or max(abs(pixel - last)) > 14:  # or the numbers would cover each other
                    values = ", ".join(part.split("=")[-1] for part in p.parameters.split(","))
                    ax.annotate(values, at, (5, -5), textcoords="offset points", fontsize=7, va="top")
                    last = pixel
        names = " and ".join(part.split("=")[0] for part in self.front[0].parameters.split(","))
        figure.suptitle(f"{self.index}: in red, what no other setting finds as cheaply ({names})", fontsize=9)
        with replacing(path) as new:
            figure.savefig(new, dpi=150)

    @property
    def title(self) -> str:
        """``quality`` as tables call it."""
        return next(title for title, name, _ in columns_of(self.points[0], self.k) if name == self.quality)


def settings(
    adapter: Adapter, wanted: Mapping[str, Iterable[float]] | None, quality: str, cost: str, labelled: bool
) -> dict[str, list[float]]:
    """Values to try by parameter, ascending: ``wanted``, or if None those that faiss's ``ParameterSpace`` has.

    Raises:
        InputError: one of ``wanted``, ``quality`` and ``cost`` is not known, or needs labels that there are not.
    """
    if not (isinstance(cost, str) and cost in COSTS):
        raise InputError(f"cost: expected one of {', '.join(COSTS)}, got {cost!r}")
    qualities = [name for name in QUALITIES if labelled or not name.startswith(("mrr", "label"))]
    if not (isinstance(quality, str) and quality in qualities):
        hint = "; those of labels need relevant=" if isinstance(quality, str) and quality in QUALITIES else ""
        raise InputError(f"quality: expected one of {', '.join(qualities)}, got {quality!r}{hint}")
    offered = ranges(adapter.index)
    if not isinstance(wanted, Mapping | None):
        raise InputError(f"parameters: expected a mapping from names to values, got {type(wanted).__name__}")
    tried = {}
    for name, values in (offered if wanted is None else wanted).items():
        if name not in offered:
            raise InputError(f"parameters: expected some of {', '.join(offered) or 'none'}, got {name!r}")
        tried[name] = _values(name, values, adapter.nlist if name == "nprobe" else LARGEST)
    return tried


def _values(name: str, values: Any, top: float) -> list[float]:
    """The values to try of a parameter, ascending."""
    try:
        found = sorted({number(name, value, "", 1, top) for value in values})
        if not found or (name != "k_factor_rf" and not all(value.is_integer() for value in found)):
            raise InputError(name)
    except (InputError, TypeError) as error:
        kind = "numbers" if name == "k_factor_rf" else "integers"
        raise InputError(f"parameters: expected {kind} from 1 to {top:g} for {name}, got {values!r}") from error
    return found


def explore(
    adapter: Adapter,
    queries: QuerySet,
    tried: Mapping[str, list[float]],
    quality: str,
    cost: str,
    progress: bool,
) -> OperatingPoints:
    """Measure an index over its parameters, but for settings that what is known already rules out.

    A larger value is taken to find as much or more, and to cost as much or more (``OperatingPointsWithRanges`` of
    ``faiss.contrib.evaluation``).

    Args:
        adapter: the index; not changed, see :func:`~faiss_distill.index.search_parameters.searching`.
        queries: see :func:`~faiss_distill.evaluation.measure.measure`.
        tried: from :func:`settings`.
        quality: see :class:`OperatingPoints`.
        cost: see :class:`OperatingPoints`.
        progress: show a progress bar.
    """
    space = OperatingPointsWithRanges()
    for name, values in tried.items():
        space.add_range(name, values)
    measured: dict[str, OperatingPoint] = {}
    order = space.sample_experiments(0) if space.num_experiments() > 1 else [0]
    for experiment in counted(order, "operating points", "points", progress):
        key = space.cno_to_key(experiment)
        if not space.should_run_experiment(key):
            continue
        values = space.get_parameters(key)
        parameters = text_of(values)
        point, _ = measure_point(adapter, queries, values, parameters)
        measured[parameters] = point
        space.add_operating_point(key, getattr(point, quality), getattr(point, cost))
    front = [measured[text_of(space.get_parameters(key))] for key, _, _ in space.operating_points]

    def by_cost(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
        return tuple(sorted(points, key=lambda p: getattr(p, cost)))

    return OperatingPoints(
        adapter.description, queries.truth.shape[1], quality, cost, by_cost(measured.values()), by_cost(front)
    )
