"""What all students have in common: centroids, and how scores come about.

Axes: ``nq`` queries, ``k`` candidate documents shared by them, ``d`` dimensions; the others as in
:mod:`faiss_distill.state`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from faiss_distill.state import IndexState, Metric


def similarity(queries: Tensor, vectors: Tensor, metric: Metric) -> Tensor:
    """Scores ``(nq, k)`` of ``queries (nq, d)`` against ``vectors (k, d)``: inner product, or minus squared L2."""
    dots = queries @ vectors.T
    if metric is Metric.INNER_PRODUCT:
        return dots
    return 2 * dots - queries.square().sum(1, keepdim=True) - vectors.square().sum(1)


class Student(nn.Module, ABC):
    """Coarse centroids as parameters, and codes, scored as faiss scores them.

    Args:
        state: where to start from.
        query_encoder: trained with them, if there is one.

    Attributes:
        centroids: ``(nlist, d)``.
        router: ``(nlist, d)``, or None where lists are found by the centroids.
        codebooks: ``(nsplits, steps, ksub, dsub)``, or None.
        query_encoder: query inputs to embeddings, in front of the index's transforms.
    """

    codebooks: nn.Parameter | None
    router: nn.Parameter | None

    def __init__(self, state: IndexState, query_encoder: nn.Module | None = None) -> None:
        """Copy the state's arrays into parameters."""
        super().__init__()
        self.metric, self.coarse_metric = state.metric, state.coarse_metric
        self.by_residual = state.by_residual
        self.centroids = nn.Parameter(torch.tensor(state.centroids))
        self.router = None if state.router is None else nn.Parameter(torch.tensor(state.router))
        self.query_encoder = query_encoder

    @property
    def signposts(self) -> nn.Parameter:
        """What a search finds its lists by: the router, or the centroids, ``(nlist, d)``."""
        return self.centroids if self.router is None else self.router

    def residuals(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """What the codes stand for: ``vectors (n, d)``, less their centroid if the index is residual."""
        return vectors - self.centroids[assignment] if self.by_residual else vectors

    @abstractmethod
    def encode(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """The codes of ``vectors (n, d)`` in the lists ``assignment (n,)`` that faiss would choose."""

    @abstractmethod
    def reconstruct(self, assignment: Tensor, codes: Tensor) -> Tensor:
        """What lists ``(n,)`` and codes stand for: ``(n, d)``."""

    def coarse_scores(self, queries: Tensor, assignment: Tensor) -> Tensor:
        """Distill-VQ Eq. 5, ``s_ivf``: ``queries (nq, d)`` with the lists of the candidates ``(k,)``, ``(nq, k)``.

        Queries come behind the index's transforms. The metric is that by which the index chooses lists.
        """
        return similarity(queries, self.centroids, self.coarse_metric).index_select(1, assignment)

    def full_scores(self, queries: Tensor, assignment: Tensor, codes: Tensor) -> Tensor:
        """Distill-VQ Eq. 5, ``s_pq``: as :meth:`coarse_scores`, of candidates with these ``codes``.

        Gradients reach the chosen codewords only.
        """
        return similarity(queries, self.reconstruct(assignment, codes), self.metric)
