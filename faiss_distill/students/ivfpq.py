"""The IVFPQ score as a torch module.

Axes: ``nq`` queries, ``k`` candidate documents shared by them, ``d`` dimensions; ``nlist``, ``M``, ``ksub`` and
``dsub`` as in :mod:`faiss_distill.state`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faiss_distill.state import IndexState, Metric


def similarity(queries: Tensor, vectors: Tensor, metric: Metric) -> Tensor:
    """Scores ``(nq, k)`` of ``queries (nq, d)`` against ``vectors (k, d)``: inner product, or minus squared L2."""
    dots = queries @ vectors.T
    if metric is Metric.INNER_PRODUCT:
        return dots
    return 2 * dots - queries.square().sum(1, keepdim=True) - vectors.square().sum(1)


def nearest_codes(residuals: Tensor, codebooks: Tensor) -> Tensor:
    """The nearest codeword of each segment: ``residuals (n, d)``, ``codebooks (M, ksub, dsub)`` to int64 ``(n, M)``."""
    n_segments, ksub, dsub = codebooks.shape
    norms = codebooks.square().sum(2)
    codes = torch.empty(len(residuals), n_segments, dtype=torch.int64, device=residuals.device)
    rows = max(1, 2**24 // ksub)  # so that the table of distances stays within 64 MiB
    for start in range(0, len(residuals), rows):
        part = slice(start, start + rows)
        for m in range(n_segments):
            segment = residuals[part, m * dsub : (m + 1) * dsub]
            codes[part, m] = torch.addmm(norms[m], segment, codebooks[m].T, alpha=-2).argmin(1)
    return codes


def decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Codewords side by side: ``codes (n, M)`` to ``(n, d)``."""
    n_segments, ksub, dsub = codebooks.shape
    flat = codes + torch.arange(n_segments, device=codes.device) * ksub
    return F.embedding(flat, codebooks.reshape(-1, dsub)).flatten(1)


class IVFPQStudent(nn.Module):
    """Coarse centroids and PQ codebooks as parameters, scored as faiss scores them.

    Args:
        state: where to start from.
        query_encoder: trained with them, if there is one.

    Attributes:
        centroids: ``(nlist, d)``.
        codebooks: ``(M, ksub, dsub)``.
        query_encoder: query inputs to embeddings, in front of the index's transforms.
    """

    def __init__(self, state: IndexState, query_encoder: nn.Module | None = None) -> None:
        """Copy the state's arrays into parameters."""
        super().__init__()
        self.metric, self.coarse_metric = state.metric, state.coarse_metric
        self.by_residual = state.by_residual
        self.centroids = nn.Parameter(torch.tensor(state.centroids))
        self.codebooks = nn.Parameter(torch.tensor(state.codebooks))
        self.query_encoder = query_encoder

    def residuals(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """What the codes stand for: ``vectors (n, d)``, less their centroid if the index is residual."""
        return vectors - self.centroids[assignment] if self.by_residual else vectors

    @torch.no_grad()
    def encode(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """Nearest codewords of ``vectors (n, d)`` in the lists ``assignment (n,)``: int64 ``(n, M)``."""
        return nearest_codes(self.residuals(vectors, assignment), self.codebooks)

    def reconstruct(self, assignment: Tensor, codes: Tensor) -> Tensor:
        """Distill-VQ Eq. 2-3: ``(n, d)`` from lists ``(n,)`` and codes ``(n, M)``."""
        decoded = decode(codes, self.codebooks)
        return decoded + F.embedding(assignment, self.centroids) if self.by_residual else decoded

    def coarse_scores(self, queries: Tensor, assignment: Tensor) -> Tensor:
        """Distill-VQ Eq. 5, ``s_ivf``: ``queries (nq, d)`` with the lists of the candidates ``(k,)``, ``(nq, k)``.

        Queries come behind the index's transforms. The metric is that by which the index chooses lists.
        """
        return similarity(queries, self.centroids, self.coarse_metric).index_select(1, assignment)

    def full_scores(self, queries: Tensor, assignment: Tensor, codes: Tensor) -> Tensor:
        """Distill-VQ Eq. 5, ``s_pq``: as :meth:`coarse_scores`, of candidates with ``codes (k, M)``.

        Gradients reach the chosen codewords only.
        """
        return similarity(queries, self.reconstruct(assignment, codes), self.metric)
