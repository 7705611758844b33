"""Which queries are the same but for rounding: found without missing any, and without comparing all with all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from faiss_distill.state import Float32, Int64

RADIUS = 0.01
"""Distance of copies, relative to the spread of the documents: their root mean square distance from their mean.

One text embedded twice comes out within 1e-6 in float32, 1e-3 in float16, 4e-3 in bfloat16. Different texts are far
beyond: of 26,000 real queries no two are nearer than 0.25, and of 16,000 documents no two are nearer than 0.16.
"""
AXES = 8
"""Random directions along which copies are looked for. A projection on them brings no two vectors further apart, so
none is missed."""


@dataclass(frozen=True)
class Likeness:
    """When two queries are the same.

    Attributes:
        directions: whether their length says nothing, as for inner product.
        radius: distance of copies, at most.
    """

    directions: bool
    radius: float

    @classmethod
    def among(cls, documents: Float32, directions: bool) -> Likeness:
        """That of queries for a corpus, given some of its vectors ``(n, d)``."""
        seen = unit(documents) if directions else documents
        return cls(directions, RADIUS * float(np.sqrt(seen.var(axis=0, dtype=np.float64).sum())))

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
        if self.directions:
            vectors = unit(vectors)
        vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        n, d = vectors.shape
        axes = np.linalg.qr(np.random.default_rng(0).standard_normal((d, min(d, AXES))))[0].astype(np.float32)
        projected = vectors @ axes
        tree, slack = cKDTree(projected), 1.01 * self.radius  # for rounding
        alone = np.isinf(tree.query(projected, k=[2], distance_upper_bound=slack)[0][:, 0])
        of_input: dict[Hashable, list[int]] = defaultdict(list)
        for i, entry in enumerate(inputs or ()):
            of_input[entry].append(i)
        first = np.full(n, -1, dtype=np.int64)
        for i in range(n):
            if first[i] >= 0 and i >= n_known:
                continue
            alike = np.array([i] if inputs is None else of_input[inputs[i]])
            if not alone[i]:
                near = np.array(tree.query_ball_point(projected[i], slack))
                near = near[np.linalg.norm(vectors[near] - vectors[i], axis=1) <= self.radius]
                alike = np.concatenate([alike, near, [i]]).astype(np.int64)
            first[alike[first[alike] < 0]] = i
        return first


def unit(vectors: Float32) -> Float32:
    """Vectors ``(n, d)`` divided by their lengths; those of length 0 stay."""
    lengths: Float32 = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
