"""When two queries are the same but for rounding, and when they are so near that one gives the other away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from faiss_distill.state import Float32, Int64

COPIES = 0.01
"""Distance of copies, relative to the spread of the documents: their root mean square distance from their mean.

One text embedded twice comes out within 1e-6 in float32, 1e-3 in float16, 4e-3 in bfloat16. Different texts are far
beyond: of 20,000 real queries no two are nearer than 0.25, and of 16,000 documents no two are nearer than 0.16.
"""
ROUNDING = 1e-5
"""The same, relative to the spread of the queries, however close the documents are."""
KIN = 0.4
"""The same of kin, such as one question in other words: what is learned from one helps all of them, and fresh queries
not at all. Of 4,400 real queries one in a hundred has kin, of 50,000 one in thirteen."""
CROWD = 0.1
"""Share of the queries beyond which kin is too many to be held out."""
AXES = 8
"""Random directions along which copies are looked for. A projection on them brings no two vectors further apart, so
none is missed."""
BLOCK = 256
"""Queries that kin is looked for at a time."""


@dataclass(frozen=True)
class Likeness:
    """How near queries are that count as one.

    Attributes:
        directions: whether their length says nothing, as for inner product.
        spread: that of the documents.
        kin: distance of kin, relative to the spread.
    """

    directions: bool
    spread: float
    kin: float = KIN

    @classmethod
    def among(cls, documents: Float32, directions: bool) -> Likeness:
        """That of queries for a corpus, given some of its vectors ``(n, d)``, ``n >= 2``.

        Where documents lie close, so that a fresh query has neighbours too, kin is half as far as the nearest of these.
        """
        x = centred(unit(documents) if directions else documents)
        distances = squared_distances(x, x)
        np.fill_diagonal(distances, np.inf)
        nearest = float(np.sqrt(max(0.0, float(np.median(distances.min(axis=1))))))
        spread = spread_of(x)
        return cls(directions, spread, min(KIN, nearest / 2 / spread) if spread else 0.0)

    def first(self, vectors: Float32, n_known: int = 0, inputs: Sequence[Hashable] | None = None) -> Int64:
        """For each vector the first one that it is a copy of; a new one is its own.

        None of the first ones is a copy of another, and each vector is a copy of one of them. Unlike clusters, they
        never chain what is far apart, however dense the vectors are.

        Args:
            vectors: ``(n, d)``.
            n_known: so many at the beginning are first ones, whatever they are copies of.
            inputs: what each vector was made of, or None; vectors of equal inputs are copies too.

        Returns:
            Row of the first one, int64 ``(n,)``.
        """
        from scipy.spatial import cKDTree  # which takes half a second to import

        x = self._seen(vectors)
        radius = max(COPIES * self.spread, ROUNDING * spread_of(x))
        n, d = x.shape
        axes = np.linalg.qr(np.random.default_rng(0).standard_normal((d, min(d, AXES))))[0].astype(np.float32)
        projected = x @ axes
        tree, slack = cKDTree(projected), 1.01 * radius  # for rounding
        alone = np.isinf(tree.query(projected, k=[2], distance_upper_bound=slack)[0][:, 0])
        of_input: dict[Hashable, list[int]] = defaultdict(list)
        for i, entry in enumerate(inputs or ()):
            of_input[entry].append(i)
        first = np.where(np.arange(n) < n_known, np.arange(n), -1)
        for i in range(n):
            if first[i] >= 0 and i >= n_known:
                continue
            alike = np.array([i] if inputs is None else of_input[inputs[i]])
            if not alone[i]:
                near = np.array(tree.query_ball_point(projected[i], slack))
                near = near[np.linalg.norm(x[near] - x[i], axis=1) <= radius]
                alike = np.concatenate([alike, near, [i]]).astype(np.int64)
            first[alike[first[alike] < 0]] = i
        return first

    def hold_out(self, vectors: Float32, order: Int64, wanted: int) -> tuple[Int64, Int64]:
        """Divide queries so that none of one part is kin of another in that part, or of any in the other.

        Args:
            vectors: ``(n, d)``, no two of them copies.
            order: in which they are considered, a permutation ``(n,)``.
            wanted: how many to hold out; fewer if a third of all would be lost with their kin.

        Returns:
            Rows of those held out, and rows of all that are no kin of these, both in that order.
        """
        x, n = self._seen(vectors), len(vectors)
        radius = self.kin * min(self.spread, spread_of(x))
        lost = np.zeros(n, dtype=bool)
        held: list[int] = []
        for start in range(0, n, BLOCK):
            block = order[start : start + BLOCK]
            block = block[~lost[block]]
            for i, kin in zip(block, squared_distances(x[block], x) <= radius**2, strict=True):
                kin[i] = True
                if lost[i] or kin.sum() > max(1, CROWD * n):
                    continue
                if len(held) == wanted or 3 * (lost | kin).sum() > n:
                    return np.array(held, dtype=np.int64), order[~lost[order]]
                held.append(i)
                lost |= kin
        return np.array(held, dtype=np.int64), order[~lost[order]]

    def _seen(self, vectors: Float32) -> Float32:
        return centred(unit(vectors) if self.directions else vectors)


def unit(vectors: Float32) -> Float32:
    """Vectors ``(n, d)`` divided by their lengths; those of length 0 stay."""
    lengths: Float32 = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def centred(vectors: Float32) -> Float32:
    """Vectors ``(n, d)`` less their mean, which would cost digits of their distances."""
    mean: Float32 = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return vectors - mean


def spread_of(x: Float32) -> float:
    """Root mean square length of centred vectors ``(n, d)``."""
    return float(np.sqrt(np.square(x).sum(axis=1, dtype=np.float64).mean()))


def squared_distances(a: Float32, b: Float32) -> Float32:
    """Between all of ``a (m, d)`` and ``b (n, d)``: ``(m, n)``."""
    out: Float32 = a @ (-2 * b.T)
    out += np.square(a).sum(axis=1)[:, None]
    out += np.square(b).sum(axis=1)
    return out
