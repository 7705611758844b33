"""A factory string for a corpus and a byte budget, after faiss's guidelines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import faiss

from faiss_distill.building.estimates import (
    add_flops,
    duration,
    flops_per_second,
    rows_to_train_on,
    shape_of,
    train_flops,
    tune_flops,
)
from faiss_distill.building.factory import MAX_D, as_metric
from faiss_distill.checks import LARGEST, integer, number
from faiss_distill.index.describe import METRIC_NAMES, parts
from faiss_distill.render.content import FACTS, Section
from faiss_distill.render.result import Result

POINTS = 39
"""Training vectors a centroid, below which faiss warns."""
MAX_N = 2**40
"""Vectors, at most: faiss's guidelines end long before."""
LISTS_FROM = 10_000
"""Vectors from which lists are worth their quantizer."""
KEPT = 0.75
"""Share of the budget that is enough, if it spares dropping dimensions."""
RESIDUAL = 4, 16
"""Bytes between which residual codes of 4 bits find more than product codes of 4 bits do in ``benchmarks.codes``."""
GRAPH_FROM = 16_384
"""Lists from which their quantizer is a graph."""


@dataclass(frozen=True, repr=False)
class Suggestion(Result):
    """What :func:`suggest` gives. ``print`` it.

    Attributes:
        factory: for :func:`faiss_distill.build`; without its ``Distill``, if any, for ``faiss.index_factory``.
        nprobe: lists to probe to begin with, or None without lists; see :func:`faiss_distill.operating_points`.
        metric: ``"inner_product"`` or ``"l2"``.
        reasons: why, token by token.
        bytes_per_vector: bytes that each vector will take, by part.
        shared_bytes: bytes that do not grow with the vectors, by part, about.
        total_bytes: of the index.
        training_bytes: of the vectors that faiss trains on, in memory beside the index while it is built.
        build_seconds: that faiss will train and add for, on this machine, within a factor of about two.
        tune_seconds: the same of the tuning, with 40,000 queries; 0 where nothing is to be tuned.
    """

    factory: str
    nprobe: int | None
    metric: str
    reasons: tuple[str, ...]
    bytes_per_vector: dict[str, float]
    shared_bytes: dict[str, int]
    total_bytes: int
    training_bytes: int
    build_seconds: float
    tune_seconds: float

    @property
    def verdict(self) -> str:
        """The string."""
        return self.factory

    def sections(self) -> tuple[Section, ...]:
        """The string, what to expect, and why."""
        each = ", ".join(f"{k} {v:g}" for k, v in self.bytes_per_vector.items())
        facts = {
            "factory string": self.factory,
            "metric": self.metric,
            **({} if self.nprobe is None else {"nprobe": f"{self.nprobe} to begin with"}),
            "bytes per vector": f"{sum(self.bytes_per_vector.values()):g}: {each}",
            "index": f"{self.total_bytes / 1e6:,.1f} MB",
            **({"while it is built": f"{self.training_bytes / 1e6:,.1f} MB more"} if self.training_bytes else {}),
            "faiss train + add": f"about {duration(self.build_seconds)}",
            **({"tuning": f"about {duration(self.tune_seconds)}"} if self.tune_seconds else {}),
        }
        return Section(columns=FACTS, rows=[*facts.items()]), Section(items=self.reasons)


def suggest(n: int, d: int, bytes_per_vector: float, metric: int | str = "l2") -> Suggestion:
    """A factory string for a corpus and a byte budget, after faiss's guidelines to choose an index.

    Args:
        n: vectors.
        d: their dimension.
        bytes_per_vector: bytes that the code of one may take; an id in a list takes 8 more.
        metric: ``"l2"`` or ``"ip"`` (inner product); or faiss's constant.

    Returns:
        The string with its reasons, and what to expect. Times are estimated from how fast this machine multiplies
        matrices, which is measured in a tenth of a second.

    Raises:
        InputError: an argument is out of its range.

    Examples:
        >>> suggest(60_000, 384, 16).factory
        'OPQ16,IVF1024,PQ16np,Distill'
    """
    n, d = integer("n", n, 1, MAX_N), integer("d", d, 1, MAX_D)
    bytes_per_vector = number("bytes_per_vector", bytes_per_vector, "a number of at least 1", 1, LARGEST)
    metric = as_metric(metric)
    nlist, coarse, reasons = _lists(n)
    transform, codes, why = _codes(n, d, int(bytes_per_vector), bool(coarse) and metric == faiss.METRIC_INNER_PRODUCT)
    reasons += why
    plain = ",".join(filter(None, [transform, coarse, codes]))
    tuned = bool(coarse) or codes.startswith("PQ")
    index: Any = faiss.index_factory(d, plain, metric)
    _, each, shared = parts(index)
    rows = rows_to_train_on(n, nlist)
    if nlist:
        reasons.append("nprobe: about the square root of the lists; operating_points() finds that for a given recall")
    shape, rate = shape_of(index), flops_per_second()
    return Suggestion(
        factory=f"{plain},Distill" if tuned else plain,
        nprobe=2 ** int(math.log2(math.sqrt(nlist))) if nlist else None,
        metric=METRIC_NAMES[metric],
        reasons=tuple(reasons),
        bytes_per_vector=each,
        shared_bytes=shared,
        total_bytes=round(n * sum(each.values())) + sum(shared.values()),
        training_bytes=0 if index.is_trained else 4 * d * rows,
        build_seconds=(train_flops(shape, rows) + add_flops(shape, n)) / rate,
        tune_seconds=tune_flops(n, d) / rate if tuned else 0.0,
    )


def _lists(n: int) -> tuple[int, str, list[str]]:
    """How many lists, their token, and why."""
    if n < LISTS_FROM:
        return 0, "", [f"no lists: comparing all of {n:,} vectors takes a fraction of a millisecond"]
    if n < 1_000_000:
        wanted, rule = 2 ** math.ceil(math.log2(4 * math.sqrt(n))), "4 to 16 times the square root of n, below 1M"
    else:
        wanted = next(k for top, k in ((1e7, 65_536), (1e8, 262_144), (math.inf, 1_048_576)) if n < top)
        rule = "65536 lists from 1M vectors, 262144 from 10M, 1048576 from 100M"
    nlist = min(wanted, 2 ** int(math.log2(n / POINTS)))
    fewer = f", but at most one for {POINTS} vectors, or faiss has too few to train on" if nlist < wanted else ""
    token = f"IVF{nlist}"
    why = f"{token}: faiss's guidelines take {rule}{fewer}"
    if nlist < GRAPH_FROM:
        return nlist, token, [why]
    graph = f"{token}_HNSW32"
    return nlist, graph, [why, f"HNSW32: of {nlist:,} centroids, a graph finds the nearest without comparing all"]


def _codes(n: int, d: int, size: int, residual: bool) -> tuple[str, str, list[str]]:
    """The tokens of transform and codes, and why; whether ``residual`` codes would do with 4 bits and without norms."""
    if n < POINTS * 16 or size >= 4 * d:
        enough = (
            "the budget holds the vectors as they are" if size >= 4 * d else f"{n:,} vectors are too few to train on"
        )
        return "", "Flat", [f"Flat: {enough}"]
    for token, bits in (("SQfp16", 16), ("SQ8", 8)):
        if 8 * size >= bits * d:
            return "", token, [f"{token}: {bits} bits a dimension are nearly exact, and fit the budget"]
    short = n < POINTS * 256
    most = min(2 * size, d) if short else min(size, d // 2)
    # As many as fit, or a few less if all dimensions can be kept so.
    segments = next((m for m in range(most, math.ceil(KEPT * most) - 1, -1) if d % m == 0), most)
    codes = f"PQ{segments}x4np" if short else f"PQ{segments}np"
    why = [
        f"{codes}: {segments} {'segment' if segments == 1 else 'segments'} of {4 if short else 8} bits"
        + (f", as {n:,} vectors are too few for 256 codewords" if short else "")
        + (f"; {segments} divides {d}, which {most} does not" if segments < most else "")
    ]
    transform = ""
    if segments > 1:
        out = d - d % segments
        transform = f"OPQ{segments}{'' if out == d else f'_{out}'}"
        reduced = "" if out == d else f", after dropping to {out} dimensions, which {segments} divides"
        why.append(
            f"OPQ{segments}: a rotation that spreads the variance over the segments{reduced}; the guidelines would go "
            "down to 4 dimensions a segment, which costs much recall in benchmarks.suggestions"
        )
    why.append("np: without polysemous training, which plain searches don't use and tuning would undo")
    if not short and residual and RESIDUAL[0] <= size <= RESIDUAL[1]:
        why.append(
            f"for faster searches and a little less recall, RQ{2 * size}x4fsr in place of OPQ{segments} and {codes}; "
            "tuning takes several times as long"
        )
    elif not short and size >= 8:
        why.append(f"for faster searches and a little less recall, PQ{2 * segments}x4fsr in place of {codes}")
    return transform, codes, why
