"""What a search finds and costs over its parameters: the Pareto front, and the cheapest point that finds enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from faiss.contrib.evaluation import OperatingPointsWithRanges

from faiss_distill.checks import LARGEST, did_you_mean, number
from faiss_distill.errors import InputError
from faiss_distill.evaluation.frame import as_frame
from faiss_distill.evaluation.measure import QuerySet, columns_of, measure_point, series_of
from faiss_distill.evaluation.point import COSTS, QUALITIES, OperatingPoint
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.index.search_parameters import ranges, set_parameters, text_of
from faiss_distill.progress import counted
from faiss_distill.render.content import Column, Page, Panel, Picture, Section
from faiss_distill.render.plot import draw
from faiss_distill.render.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from faiss_distill.typing import FaissIndex, PathLike


@dataclass(frozen=True, repr=False)
class OperatingPoints(Result):
    """Settings of an index's search. ``print(points)`` shows the Pareto front.

    Attributes:
        index: classes from the outside in.
        k: depth of the searches.
        quality: what counts as found, a field of :class:`~faiss_distill.evaluation.point.OperatingPoint`.
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
        at_least = share("at_least", at_least)
        for point in self.front:
            if getattr(point, self.quality) >= at_least:
                return point
        best = self.front[-1]
        raise InputError(
            "at_least",
            f"at most the {self.title} of {getattr(best, self.quality):.3f} that is reached with "
            f"{best.parameters or 'this index'}",
            str(at_least),
            "to find more, try other parameters, longer codes or a refinement",
        )

    def set_on(self, index: FaissIndex, at_least: float) -> OperatingPoint:
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

    @property
    def verdict(self) -> str:
        """What was found of what."""
        return (
            f"{self.index}: {self.title} against {self.cost}, the {len(self.front)} of {len(self.points)} operating "
            f"points that no other beats"
        )

    def sections(self) -> tuple[Section, ...]:
        """The front as a table."""
        return Section(self.verdict), self._front()

    def page(self) -> Page:
        """The same with the picture."""
        return Page("Operating points", self.verdict, [self.picture(), self._front()])

    def _front(self) -> Section:
        columns = columns_of(self.points[0], self.k)
        rows = [[p.parameters or "none", *(getattr(p, name) for name in columns)] for p in self.front]
        return Section(columns=[Column("parameters", left=True), *columns.values()], rows=rows)

    def picture(self) -> Picture:
        """``quality`` against each of the costs."""
        names = " and ".join(part.split("=")[0] for part in self.front[0].parameters.split(","))
        caption = f"{self.index}: in red, what no other setting finds as cheaply ({names})"
        return Picture([self._panel(cost, label) for cost, label in COSTS.items()], caption=caption)

    def _panel(self, cost: str, label: str) -> Panel:
        values = [", ".join(part.split("=")[-1] for part in p.parameters.split(",")) for p in self.front]
        every = series_of("all", self.points, cost, self.quality, joined=False)
        front = series_of("front", self.front, cost, self.quality, labels=values, joined=cost == self.cost)
        return Panel(label, self.title, [every, front])

    def plot(self, path: PathLike) -> None:
        """Draw ``quality`` against distances and against latency into ``path``, ``.png``, ``.svg`` or ``.pdf``.

        Raises:
            InputError: another suffix, or no such folder.
            MissingDependencyError: matplotlib is not installed.
        """
        draw(self.picture(), path)

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame with a row for each of ``points``; in the column ``front``, whether it is in that.

        The other columns are the fields of :class:`~faiss_distill.evaluation.point.OperatingPoint`, without those that
        no row has, such as those of labels.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return as_frame((point, {"front": point in self.front}) for point in self.points)

    @property
    def title(self) -> str:
        """``quality`` as tables call it."""
        return columns_of(self.points[0], self.k)[self.quality].name


def share(name: str, value: Any) -> float:
    """A quality that is asked for, as a share.

    Raises:
        InputError: it is not between 0 and 1; for a percentage, the message says what it is as a share.
    """
    percent = isinstance(value, Real) and value <= 100 and not value <= 1
    hint = f"{value:g} % is {float(value) / 100:g}" if percent else ""
    return number(name, value, "a number between 0 and 1", 0, 1, hint=hint)


def settings(
    adapter: IndexAdapter, wanted: Mapping[str, Iterable[float]] | None, quality: str, cost: str, labelled: bool
) -> dict[str, list[float]]:
    """Values to try by parameter, ascending: ``wanted``, or if None those that faiss's ``ParameterSpace`` has.

    Raises:
        InputError: one of ``wanted``, ``quality`` and ``cost`` is not known, or needs labels that there are not.
    """
    if not (isinstance(cost, str) and cost in COSTS):
        raise InputError("cost", f"one of {', '.join(COSTS)}", repr(cost), did_you_mean(cost, COSTS))
    qualities = [name for name in QUALITIES if labelled or not name.startswith(("mrr", "label"))]
    if not (isinstance(quality, str) and quality in qualities):
        hint = did_you_mean(quality, qualities)
        if isinstance(quality, str) and quality in QUALITIES:
            hint = "those of labels need relevant="
        raise InputError("quality", f"one of {', '.join(qualities)}", repr(quality), hint)
    offered = ranges(adapter.index)
    if not isinstance(wanted, Mapping | None):
        raise InputError("parameters", "a mapping from names to values", type(wanted).__name__)
    tried = {}
    for name, values in (offered if wanted is None else wanted).items():
        if name not in offered:
            near = did_you_mean(name, offered)
            raise InputError("parameters", f"some of {', '.join(offered) or 'none'}", repr(name), near)
        tried[name] = _values(name, values, adapter.nlist if name == "nprobe" else LARGEST)
    return tried


def _values(name: str, values: Any, top: float) -> list[float]:
    """The values to try of a parameter, ascending."""
    try:
        found = sorted({number(name, value, "", 1, top) for value in values})
        if not found or (name != "k_factor_rf" and not all(value.is_integer() for value in found)):
            raise TypeError(name)
    except (InputError, TypeError) as error:
        kind = "numbers" if name == "k_factor_rf" else "integers"
        raise InputError("parameters", f"{kind} from 1 to {top:g} for {name}", repr(values)) from error
    return found


def explore(
    adapter: IndexAdapter,
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
