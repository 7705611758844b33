"""Plain arrays that stand between faiss and torch.

Axes, everywhere in this package: ``n`` stored vectors; ``nlist`` inverted lists; ``d`` dimensions *behind* the index's
transforms, in ``nsplits`` parts of ``dsub``, each of which is the sum of ``steps`` codewords out of ``ksub``. Product
quantizers have one step and ``M = nsplits`` parts; residual and local search quantizers ``M = steps`` and one part;
their product forms several of both.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
"""A numpy array of float32."""
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
"""A numpy array of int64."""
Bool = NDArray[np.bool_]
Packed = NDArray[np.uint8]
Codes = NDArray[np.uint8] | NDArray[np.uint16]


class Metric(enum.Enum):
    """How vectors are compared. Inside this package a higher score is better, so L2 is ``-||q - x||^2``."""

    INNER_PRODUCT = "inner_product"
    L2 = "l2"


class Transforms(Protocol):
    """What an index does to vectors before it compares them: linear maps and normalization, one after the other."""

    def __call__(self, x: Float32) -> Float32:
        """``x (n, d_in)`` behind the transforms: float32 ``(n, d)``."""
        ...

    @property
    def steps(self) -> tuple[tuple[Float32, Float32] | None, ...]:
        """The same as arrays: ``x -> x @ A + b`` for ``(A, b)``, and ``x / ||x||`` for None."""
        ...


@dataclass(frozen=True)
class IndexState:
    """Everything of an index that decides its scores (Distill-VQ Eq. 2-3).

    The reconstruction of vector ``i`` is that of its codewords, :func:`decode`, plus ``centroids[assignment[i]]`` when
    ``by_residual``. Vectors are ordered by the id stored in the lists.

    An index without codebooks has its codes as faiss stores them; only its adapter can decode them.

    Attributes:
        metric: the index's metric.
        coarse_metric: that of its coarse quantizer, which decides lists. faiss lets it be another.
        by_residual: whether codes hold ``x - centroid`` or ``x`` itself.
        centroids: coarse centroids as the quantizer reconstructs them, float32 ``(nlist, d)``.
        codebooks: codewords, float32 ``(nsplits, steps, ksub, dsub)``; None without any.
        assignment: list of each vector, int64 ``(n,)``.
        codes: codeword numbers, uint8 (``ksub <= 256``) or uint16, ``(n, nsplits * steps)``; without codebooks what the
            index stores, uint8 ``(n, code_size)``.
        ids: ids as stored in the inverted lists, ascending, int64 ``(n,)``.
        router: what a search finds its lists by where that is not the centroids, float32 ``(nlist, d)``; else None.
    """

    metric: Metric
    coarse_metric: Metric
    by_residual: bool
    centroids: Float32
    codebooks: Float32 | None
    assignment: Int64
    codes: Codes
    ids: Int64
    router: Float32 | None = None

    @property
    def n(self) -> int:
        """Number of stored vectors."""
        return len(self.ids)

    @property
    def signposts(self) -> Float32:
        """What a search finds its lists by: the router, or the centroids, float32 ``(nlist, d)``."""
        return self.centroids if self.router is None else self.router

    @property
    def d(self) -> int:
        """Dimension behind the transforms."""
        return int(self.centroids.shape[1])

    def take(self, rows: Int64) -> IndexState:
        """The same parameters over some of the vectors."""
        return replace(self, assignment=self.assignment[rows], codes=self.codes[rows], ids=self.ids[rows])

    def reconstruct(self, rows: Int64) -> Float32:
        """Decode the vectors ``rows``: float32 ``(len(rows), d)``."""
        assert self.codebooks is not None
        decoded = decode(self.codes[rows], self.codebooks)
        return decoded + self.centroids[self.assignment[rows]] if self.by_residual else decoded


def decode(codes: Codes, codebooks: Float32) -> Float32:
    """What ``codes``, one row a vector, stand for under ``codebooks``, shaped as in :class:`IndexState`: ``(n, d)``."""
    splits, steps, _, dsub = codebooks.shape
    books = codebooks.reshape(splits * steps, -1, dsub)
    words = books[np.arange(len(books)), codes]  # (n, splits * steps, dsub)
    decoded: Float32 = words.reshape(len(codes), splits, steps, dsub).sum(2).reshape(len(codes), -1)
    return decoded


def code_dtype(ksub: int) -> type[np.uint8] | type[np.uint16]:
    """The narrowest dtype that holds codeword numbers below ``ksub``."""
    return np.uint8 if ksub <= 256 else np.uint16
