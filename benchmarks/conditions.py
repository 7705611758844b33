"""Other metrics, codes, norms, dimensions and queries than those of the other tables.

python -m benchmarks.conditions

Where documents alone teach, real queries judge, and the gate decides: its row says how many tunings it kept.
Made from the packaged sample (or ``--data``): the vectors of a condition are those of Debian, changed as its name says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import OURS
from benchmarks.suite import Experiment, Row, Table, main, output
from benchmarks.suite.results import LEVEL, paired_p
from faiss_distill.datasets import RetrievalData
from faiss_distill.state import Float32

RANK, SHIFT = 64, 0.5
"""Of queries from another distribution: the dimensions that they keep, and how far their mean moves."""
QUICK = ("L2", "queries of another distribution", "96 dimensions")


def unit(x: NDArray[Any]) -> Float32:
    """Rows of unit norm."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def of_other_norms(data: RetrievalData) -> RetrievalData:
    """Documents with log-normal norms: the inner product then is no cosine, and long documents are found more often."""
    norms = np.random.default_rng(0).lognormal(0.0, 0.25, (len(data.documents), 1))
    return replace(data, documents=np.asarray(data.documents * norms, dtype=np.float32))


def with_other_queries(data: RetrievalData) -> RetrievalData:
    """Queries from a shifted, rotated distribution of lower rank, as if they came from another encoder.

    They lose all but ``RANK`` random dimensions, are half-way turned by a random rotation, and move together.
    """
    rng, d = np.random.default_rng(0), data.queries.shape[1]
    kept = np.linalg.qr(rng.standard_normal((d, RANK)))[0]
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    low = unit(data.queries @ kept @ kept.T)
    shift = unit(rng.standard_normal((1, d)))
    return replace(data, queries=unit(low + unit(low @ rotation) + 2 * SHIFT * shift))


def of_dimension(d: int) -> Callable[[RetrievalData], RetrievalData]:
    """Vectors of ``d`` dimensions: a random projection to fewer, random Fourier features for more."""

    def change(data: RetrievalData) -> RetrievalData:
        rng, given = np.random.default_rng(0), data.documents.shape[1]
        if d < given:
            basis = np.linalg.qr(rng.standard_normal((given, d)))[0]
            return replace(data, documents=unit(data.documents @ basis), queries=unit(data.queries @ basis))
        frequencies, phases = 1.5 * rng.standard_normal((given, d)), rng.uniform(0, 2 * np.pi, d)
        documents, queries = (unit(np.cos(x @ frequencies + phases)) for x in (data.documents, data.queries))
        return replace(data, documents=documents, queries=queries)

    return change


def conditions(e: Experiment) -> Iterator[tuple[str, Experiment, str, int | None]]:
    """Name, data and metric, factory string, and how many queries (None for all) of each condition."""
    size, nlist = e.bytes, e.nlist
    plain = f"IVF{nlist},PQ{size}np"
    l2, norms, shifted = (
        e.variant(metric="l2"),
        e.variant(of_other_norms(e.data)),
        e.variant(with_other_queries(e.data)),
    )
    yield "as elsewhere", e, e.factory(), None
    yield "L2", l2, e.factory(), None
    yield "no rotation", e, plain, None
    yield "no rotation, L2", l2, plain, None
    yield "4-bit codes", e, f"OPQ{2 * size},IVF{nlist},PQ{2 * size}x4np", None
    yield "4-bit codes, L2", l2, f"OPQ{2 * size},IVF{nlist},PQ{2 * size}x4np", None
    yield "norms vary", norms, plain, None
    yield "norms vary, L2", norms.variant(norms.data, "l2"), plain, None
    yield "queries of another distribution", shifted, plain, None
    yield "queries of another distribution, L2", shifted.variant(shifted.data, "l2"), plain, None
    yield "queries of another distribution, a hundred of them", shifted, plain, 100
    yield "queries of another distribution, trained on documents alone", shifted, plain, 0
    for d in (96, 768, 1536):
        yield f"{d} dimensions", e.variant(of_dimension(d)(e.data)), plain, None


def rows(e: Experiment) -> Sequence[Row]:
    """Untuned and ours, judged and searched at the usual number of lists; and the same indexes at one list."""
    out = []
    for name, data, factory, n_queries in conditions(e):
        if e.quick and name not in QUICK:
            continue
        for nprobe in (e.nprobe, 1):
            group = f"{name}; {factory}; nprobe {nprobe}"
            out.append(data.row("untuned", factory, search_nprobe=nprobe, group=group, baseline=True))
            judged = n_queries == 0
            tuned = data.row(
                "ours", factory, OURS, search_nprobe=nprobe, group=group, n_queries=n_queries, judged=judged
            )
            out.append(tuned)
    return out


def conclude(rows: Sequence[Row]) -> str:
    """Which metrics fell, of all that are measured."""
    fallen, n = [], 0
    for untuned, tuned in zip(rows[::2], rows[1::2], strict=True):
        for metric in untuned.runs[0].scores:
            before, after = untuned.per_query(metric), tuned.per_query(metric)
            n += 1
            if after.mean() < before.mean() and (p := paired_p(after, before)) < LEVEL:
                title = output.COLUMNS[metric][1]
                fallen.append(f"  {title} {before.mean():.3f} to {after.mean():.3f}, p {p:.1g}: {tuned.group}")
    return "\n".join([f"Fell beyond chance (p < {LEVEL}), of {n} metrics of all rows: {len(fallen)}", *fallen])


TABLE = Table("conditions", "Other conditions", rows, conclude=conclude)

if __name__ == "__main__":
    main(TABLE)
