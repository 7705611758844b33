"""How long faiss trains and adds, and how long tuning takes, by how fast this machine multiplies matrices.

What each takes is counted in multiplications of matrices that would take as long. The constants are fitted to builds of
the Debian embeddings; ``benchmarks.suggestions`` compares estimates with what came of them.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import faiss
import numpy as np

from faiss_distill.config import DistillConfig

TRAINING_ROWS = 262_144
"""Of a larger corpus, those that faiss trains on, at least."""
PER_LIST = 64
"""Training vectors for each list, if that is more: faiss's guidelines ask for 30 to 256."""
OVERHEAD = 110.0
"""A distance of a sub-quantizer takes as long as this many multiplications more."""
SVD = 1300.0
"""Of a matrix, by the cube of its side."""
POLYSEMOUS = 3.5e11
"""Polysemous training of the codewords of one segment, of 8 bits."""
GRAPH = 1_000
"""Centroids that a graph of them compares a vector with."""
ENCODING, EPOCHS = 340_000.0, 340_000.0
"""Of a document, and of a query, by dimension."""


class Shape(NamedTuple):
    """What decides how long an index takes to build.

    Attributes:
        d: dimension of the vectors.
        nlist: inverted lists, or 0.
        compared: centroids that a vector to be added is compared with.
        segments: those of a product quantizer, or 0.
        words: codewords of each.
        rotated: whether a rotation is learned (OPQ).
        polysemous: whether codewords get polysemous numbers.
    """

    d: int
    nlist: int
    compared: int
    segments: int
    words: int
    rotated: bool
    polysemous: bool


def shape_of(index: Any) -> Shape:
    """The shape of an index, trained or not."""
    ivf: Any = faiss.try_extract_index_ivf(index)
    nlist = 0 if ivf is None else int(ivf.nlist)
    graph = ivf is not None and isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexHNSW)
    core, rotated = index, False
    while True:
        core = faiss.downcast_index(core)
        if isinstance(core, faiss.IndexPreTransform):
            chain: Any = core.chain
            transforms = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
            rotated = rotated or any(isinstance(t, faiss.OPQMatrix) for t in transforms)
        inner = getattr(core, "index", None) or getattr(core, "base_index", None)
        if inner is None:
            break
        core = inner
    pq: Any = getattr(core, "pq", None)
    return Shape(
        d=index.d,
        nlist=nlist,
        compared=GRAPH if graph else nlist,
        segments=0 if pq is None else int(pq.M),
        words=0 if pq is None else int(pq.ksub),
        rotated=rotated,
        polysemous=bool(getattr(core, "do_polysemous_training", False)),
    )


def rows_to_train_on(n: int, nlist: int) -> int:
    """How many of ``n`` vectors faiss is given to train ``nlist`` lists, or none, and codes on."""
    return min(n, max(TRAINING_ROWS, PER_LIST * nlist))


def train_flops(shape: Shape, rows: int) -> float:
    """What faiss's training on ``rows`` vectors takes."""
    d, distance = shape.d, _distance(shape)
    coarse = 2 * 10 * min(rows, 256 * shape.nlist) * shape.nlist * 2 * d
    product = 25 * min(rows, 256 * shape.words) * shape.words * shape.segments * distance
    if shape.polysemous:
        product += POLYSEMOUS * shape.segments
    if not shape.rotated:
        return coarse + product
    sample = min(rows, 65_536)  # of OPQ: 50 rounds, of k-means with 4 iterations, 40 in the first
    rotation = 50 * (6 * sample * d * d + SVD * d**3) + 236 * sample * shape.words * shape.segments * distance
    return coarse + product + rotation


def add_flops(shape: Shape, n: int) -> float:
    """What adding ``n`` vectors takes."""
    return n * (4 * shape.d * shape.compared + shape.words * shape.segments * _distance(shape))


def tune_flops(n: int, d: int) -> float:
    """What tuning with 40,000 queries takes: the teacher, three epochs, four passes of encoding."""
    queries = min(DistillConfig.fill_to, n)
    return 2.0 * n * queries * d + ENCODING * n * d + EPOCHS * queries * d


def flops_per_second() -> float:
    """Of a product of matrices, the best of several."""
    a, b = np.ones((1024, 384), dtype=np.float32), np.ones((384, 1024), dtype=np.float32)
    best = math.inf
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 384 * 1024 / best


def training_seconds(index: Any, n: int) -> float:
    """About how long faiss will train an index on what it is given of ``n`` vectors."""
    shape = shape_of(index)
    return train_flops(shape, rows_to_train_on(n, shape.nlist)) / flops_per_second()


def tuning_seconds(n: int, d: int) -> float:
    """About how long tuning will take."""
    return tune_flops(n, d) / flops_per_second()


def duration(seconds: float) -> str:
    """In words.

    Examples:
        >>> duration(0.2), duration(75), duration(300), duration(7200)
        ('1 s', '75 s', '5 min', '2.0 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _distance(shape: Shape) -> float:
    """Of a vector and a codeword, in one segment."""
    return 2 * shape.d / max(shape.segments, 1) + OVERHEAD
