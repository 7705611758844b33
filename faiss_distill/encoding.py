r"""Codes from vectors, chosen for the queries that matter rather than for the vector's own reconstruction.

The nearest codeword of each segment minimises :math:`\|e\|^2` with :math:`e = x - \hat x`. A search compares scores,
so what counts is the *score error* of the queries that come near :math:`x`. With higher scores better, replacing
:math:`x` by :math:`\hat x` changes query :math:`q`'s score by

* inner product: :math:`-q \cdot e`,
* L2: :math:`-(2(q - x) \cdot e + \|e\|^2)`,

both of the form :math:`-(u \cdot e + \kappa \|e\|^2)`. The codes minimise

.. math:: \|e\|^2 + e^\top G e + \sum_r w_r (u_r \cdot e + \kappa \|e\|^2)^2,

where :math:`G` is the covariance of all training queries, up to scale, and the directions :math:`u_r` belong to the
document's own nearest training queries and to the document itself taken as a query. The terms that couple segments are
the point: they let one segment cancel another's error. Coordinate descent over the ``M`` sub-codes starts from the
nearest codewords; no sweep can raise the cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_distill.config import DistillConfig
from faiss_distill.state import Metric
from faiss_distill.students import decode, nearest_codes


def score_error_codes(
    residuals: Tensor,
    codebooks: Tensor,
    hessian: Tensor,
    directions: Tensor,
    weights: Tensor,
    kappa: float,
    sweeps: int,
) -> Tensor:
    r"""Minimise :math:`e^\top H e + \sum_r w_r (u_r \cdot e + \kappa \|e\|^2)^2` over codes by coordinate descent.

    Args:
        residuals: what the codes stand for, ``(n, d)``; :math:`e` is this minus the decoded codewords.
        codebooks: ``(M, ksub, dsub)``.
        hessian: :math:`H`, symmetric positive definite, ``(d, d)``.
        directions: :math:`u`, ``(n, R, d)``.
        weights: :math:`w \ge 0`, ``(n, R)``.
        kappa: 0 for inner product, positive for L2.
        sweeps: passes over the segments; stops early once nothing changes.

    Returns:
        Codes, int64 ``(n, M)``.
    """
    n_segments, _, dsub = codebooks.shape
    segments = [slice(m * dsub, (m + 1) * dsub) for m in range(n_segments)]
    norms = codebooks.square().sum(2)
    # Per segment, the part of the cost that no other segment changes: (n, ksub) each.
    own = []
    for m, s in enumerate(segments):
        dots = -(directions[:, :, s] @ codebooks[m].T)
        if kappa:
            error = residuals[:, s].square().sum(1, keepdim=True) - 2 * residuals[:, s] @ codebooks[m].T + norms[m]
            dots += torch.einsum("nrd,nd->nr", directions[:, :, s], residuals[:, s])[:, :, None]
            dots += kappa * error[:, None]
        quadratic = ((codebooks[m] @ hessian[s, s]) * codebooks[m]).sum(1)
        own.append(torch.einsum("nr,nrk->nk", weights, dots.square_()) + quadratic)

    codes = nearest_codes(residuals, codebooks)
    e = residuals - decode(codes, codebooks)
    he = e @ hessian
    score_error = torch.einsum("nrd,nd->nr", directions, e) + kappa * e.square().sum(1, keepdim=True)
    for _ in range(sweeps):
        before = codes.clone()
        for m, s in enumerate(segments):
            u, r, old = directions[:, :, s], residuals[:, s], codebooks[m][codes[:, m]]
            # Score error of the other segments alone. With kappa = 0 the segment's residual may stay in: see `own`.
            inner = r - old if kappa else -old
            rest = score_error - torch.einsum("nrd,nd->nr", u, inner)
            if kappa:
                rest -= kappa * inner.square().sum(1, keepdim=True)
            pull = weights * rest
            total = kappa * pull.sum(1, keepdim=True)
            linear = torch.einsum("nr,nrd->nd", pull, u) + he[:, s] + old @ hessian[s, s] + 2 * total * r
            cost = own[m] - 2 * linear @ codebooks[m].T
            if kappa:
                cost += 2 * total * norms[m]
            codes[:, m] = cost.argmin(1)
            new = codebooks[m][codes[:, m]]
            e[:, s] += old - new
            he += (old - new) @ hessian[s]
            inner = r - new if kappa else -new
            score_error = rest + torch.einsum("nrd,nd->nr", u, inner)
            if kappa:
                score_error += kappa * inner.square().sum(1, keepdim=True)
        if torch.equal(codes, before):
            break
    return codes


class QueryAwareEncoder:
    r"""Query-aware codes for one set of training queries.

    Weights are relative to the queries' scale :math:`s^2`, which is :math:`E\|q\|^2` for inner product and
    :math:`4 E\|q - \bar q\|^2` for L2, so that the same weights serve embeddings of any norm.

    Args:
        queries: training queries behind the index's transforms, ``(nq, d)``.
        metric: the index's metric.
        config: the weights, ``local_queries`` and ``sweeps``.
    """

    def __init__(self, queries: Tensor, metric: Metric, config: DistillConfig) -> None:
        """Take the moments of the queries."""
        d = queries.shape[1]
        self.queries, self.metric, self.config = queries, metric, config
        mean = queries.mean(0)
        centred = queries - mean
        covariance = centred.T @ centred / len(queries)
        scale = covariance.trace()
        if metric is Metric.INNER_PRODUCT:
            scale = scale + mean.square().sum()
        scale = scale.clamp(min=torch.finfo(queries.dtype).tiny)
        self.hessian = torch.eye(d, device=queries.device) + config.global_weight * d * (covariance / scale)
        self.scale = float(scale.sqrt()) * (1 if metric is Metric.INNER_PRODUCT else 2)

    def block_size(self, codebooks: Tensor) -> int:
        """Documents to encode at a time, so that a block's tables stay within 2**22 numbers."""
        n_segments, ksub, _ = codebooks.shape
        return max(16, min(1024, 2**22 // (ksub * max(n_segments, self.config.local_queries + 1))))

    def directions(self, vectors: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The score-error directions of ``vectors (n, d)`` and their weights: ``(n, R, d)`` and ``(n, R)``.

        Args:
            vectors: documents behind the index's transforms.
            local: each document's own queries, int64 ``(n, local_queries)``, -1 for none.
        """
        config, x = self.config, vectors[:, None]
        near = self.queries[local.clamp(min=0)]
        if self.metric is Metric.INNER_PRODUCT:
            itself = x / x.norm(dim=2, keepdim=True).clamp(min=1e-30)
            u = torch.cat([near / self.scale, itself], dim=1)
        else:
            # As a query, x itself has u = 0: its score error is ||e||^2 alone.
            u = torch.cat([near - x, torch.zeros_like(x)], dim=1) * (2 / self.scale)
        weights = u.new_empty(u.shape[:2])
        weights[:, :-1] = config.local_weight * (local >= 0)
        weights[:, -1] = config.self_weight
        return u, weights

    def __call__(self, vectors: Tensor, residuals: Tensor, codebooks: Tensor, local: Tensor) -> Tensor:
        """Codes of ``vectors (n, d)`` whose codes stand for ``residuals (n, d)``: int64 ``(n, M)``."""
        kappa = 0.0 if self.metric is Metric.INNER_PRODUCT else 1 / self.scale
        size = self.block_size(codebooks)
        blocks = []
        for i in range(0, len(vectors), size):
            part = slice(i, i + size)
            u, weights = self.directions(vectors[part], local[part])
            blocks.append(
                score_error_codes(residuals[part], codebooks, self.hessian, u, weights, kappa, self.config.sweeps)
            )
        return torch.cat(blocks)
