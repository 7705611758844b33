r"""Codes from vectors, chosen for the queries that matter rather than for the vector's own reconstruction.

The nearest codeword of each segment minimises :math:`\|e\|^2` with :math:`e = x - \hat x`. A search compares scores,
so what counts is the *score error* of the queries that come near :math:`x`. With higher scores better, replacing
:math:`x` by :math:`\hat x` changes query :math:`q`'s score by

* inner product: :math:`-q \cdot e`,
* L2: :math:`-(2(q - x) \cdot e + \|e\|^2)`,

both of the form :math:`-(u \cdot e + \kappa \|e\|^2)`. The codes minimise

.. math:: \|e\|^2 + e^\top G e + \sum_r w_r (u_r \cdot e + \kappa \|e\|^2 - t_r)^2,

where :math:`G` is the covariance of all training queries, up to scale, and the directions :math:`u_r` belong to the
document's own nearest training queries and to the document itself taken as a query. A ranking does not change if all
scores are wrong by the same amount, so :math:`t_r` is not 0 but what the other documents that a query meets are wrong
by. That matters for L2, where codewords lie inside the cloud of what they stand for and make what is far look nearer,
and for documents few of whose queries are known: were only some put right, these would win over those that are not.

The terms that couple segments are the point: they let one segment cancel another's error. Coordinate descent over the
sub-codes starts from the nearest codewords or from earlier codes; no sweep can raise the cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_distill.config import DistillConfig
from faiss_distill.learning.codes.nearest import decode, nearest_codes
from faiss_distill.state import Metric

HALF = 24
"""A document's local queries weigh less the further they are: one of this rank half of what the best one does."""


def score_error_codes(
    residuals: Tensor,
    codebooks: Tensor,
    hessian: Tensor,
    directions: Tensor,
    weights: Tensor,
    kappa: float,
    sweeps: int,
    start: Tensor | None = None,
    targets: Tensor | None = None,
) -> Tensor:
    r"""Minimise :math:`e^\top H e + \sum_r w_r (u_r \cdot e + \kappa \|e\|^2 - t_r)^2` by coordinate descent.

    Args:
        residuals: what the codes stand for, ``(n, d)``; :math:`e` is this minus the decoded codewords.
        codebooks: ``(nsplits, 1, ksub, dsub)``.
        hessian: :math:`H`, symmetric positive definite, ``(d, d)``.
        directions: :math:`u`, ``(n, R, d)``.
        weights: :math:`w \ge 0`, ``(n, R)``.
        kappa: 0 for inner product, positive for L2.
        sweeps: passes over the segments; stops early once nothing changes.
        start: codes to start from, int64 ``(n, nsplits)``; the nearest codewords if None.
        targets: :math:`t`, ``(n, R)``; 0 if None.

    Returns:
        Codes, int64 ``(n, nsplits)``.
    """
    n, (n_segments, _, _, dsub), books = len(residuals), codebooks.shape, codebooks[:, 0]
    segments = [slice(m * dsub, (m + 1) * dsub) for m in range(n_segments)]
    # Each segment's directions side by side in memory, times the roots of the weights.
    roots = weights.sqrt()[:, :, None]
    parts = (directions * roots).view(n, -1, n_segments, dsub).permute(2, 0, 1, 3).contiguous()
    # Per segment, the part of the cost that no other segment changes: (n, ksub) each.
    own = []
    for u, s, book in zip(parts, segments, books, strict=True):
        r = residuals[:, s]
        table = _quadratic(hessian[s, s], u, r, book)
        if kappa:
            error, pull = _squared(r, book), torch.bmm(u.transpose(1, 2), roots)
            along = torch.bmm(r[:, None], pull)[:, 0] - pull[:, :, 0] @ book.T
            table += kappa * error * (kappa * weights.sum(1, keepdim=True) * error + 2 * along)
        own.append(table)

    codes = nearest_codes(residuals, codebooks) if start is None else start.clone()
    e = residuals - decode(codes, codebooks)
    he = e @ hessian
    score_error = torch.stack([torch.bmm(u, e[:, s, None]) for u, s in zip(parts, segments, strict=True)]).sum(0)
    if kappa:
        score_error += kappa * roots * e.square().sum(1)[:, None, None]
    if targets is not None:  # from here on the score error less its target: it enters only as a constant
        score_error -= roots * targets[:, :, None]
    for _ in range(sweeps):
        before = codes.clone()
        for m, (u, s, book) in enumerate(zip(parts, segments, books, strict=True)):
            old = e[:, s].clone()
            # Score error of the other segments alone.
            rest = torch.baddbmm(score_error, u, old[:, :, None], alpha=-1)
            if kappa:
                rest -= kappa * roots * old.square().sum(1)[:, None, None]
            linear = torch.bmm(u.transpose(1, 2), rest)[:, :, 0] + he[:, s] - old @ hessian[s, s]
            cost = torch.addmm(own[m], linear, book.T, alpha=-2)
            if kappa:
                cost += 2 * kappa * (roots * rest).sum(1) * _squared(residuals[:, s], book)
            codes[:, m] = cost.argmin(1)
            new = residuals[:, s] - book[codes[:, m]]
            e[:, s] = new
            he.addmm_(new - old, hessian[s])
            score_error = torch.baddbmm(rest, u, new[:, :, None])
            if kappa:
                score_error += kappa * roots * new.square().sum(1)[:, None, None]
        if torch.equal(codes, before):
            break
    return codes


def _quadratic(hessian: Tensor, directions: Tensor, residuals: Tensor, book: Tensor) -> Tensor:
    r""":math:`e^\top H e + \sum_r (u_r \cdot e)^2`, less what it is for :math:`c = 0`, with :math:`e = r - c`.

    Args:
        hessian: ``(dsub, dsub)``.
        directions: ``(n, R, dsub)``.
        residuals: ``(n, dsub)``.
        book: codewords :math:`c`, ``(ksub, dsub)``.

    Returns:
        Tensor ``(n, ksub)``.
    """
    dsub = book.shape[1]
    if dsub > 2 * directions.shape[1]:  # a product for each direction costs less than one for each pair of dimensions
        along = directions @ book.T
        crossed = (along * (along - 2 * torch.bmm(directions, residuals[:, :, None]))).sum(1)
        return crossed + ((book @ hessian) * book).sum(1) - 2 * residuals @ hessian @ book.T
    gram = torch.baddbmm(hessian, directions.transpose(1, 2), directions)
    row, column = torch.triu_indices(dsub, dsub, device=book.device)
    products = book[:, row] * book[:, column] * torch.where(row == column, 1, 2)
    square = gram.flatten(1).index_select(1, row * dsub + column) @ products.T
    return torch.addmm(square, torch.bmm(gram, residuals[:, :, None])[:, :, 0], book.T, alpha=-2)


def _squared(vectors: Tensor, book: Tensor) -> Tensor:
    """Squared distances of ``vectors (n, dsub)`` from the codewords ``book (ksub, dsub)``: ``(n, ksub)``."""
    return vectors.square().sum(1, keepdim=True) - 2 * vectors @ book.T + book.square().sum(1)


def closeness(local: Tensor, dtype: torch.dtype) -> Tensor:
    """How much each of a document's own queries counts, best first: int64 ``(n, R)``, -1 for none, to ``(n, R)``."""
    rank = torch.arange(local.shape[1], device=local.device, dtype=dtype)
    return (local >= 0) / (1 + rank / HALF)


def block_of(tables: int, directions: int) -> int:
    """Documents in a block, of which each takes so many numbers: 16 or more, unless the directions are very many."""
    few = max(16, min(256, 2**21 // tables))
    return max(1, min(few, 2**21 // directions))


class QueryAwareEncoder:
    r"""Query-aware codes for one set of training queries.

    Weights are relative to the queries' scale :math:`s^2`, which is :math:`E\|q\|^2` for inner product and
    :math:`4 E\|q - \bar q\|^2` for L2, so that the same weights serve embeddings of any norm.

    Args:
        queries: training queries behind the index's transforms, ``(nq, d)``.
        codebooks: ``(nsplits, 1, ksub, dsub)``.
        metric: the index's metric.
        config: the weights, ``local_queries`` and ``sweeps``.
        offset: what local queries' scores shall be wrong by: approximate minus exact score, higher being better.
    """

    def __init__(
        self, queries: Tensor, codebooks: Tensor, metric: Metric, config: DistillConfig, offset: float = 0.0
    ) -> None:
        """Take the moments of the queries."""
        d = queries.shape[1]
        self.queries, self.codebooks, self.metric, self.config = queries, codebooks, metric, config
        self.offset = offset
        mean = queries.mean(0)
        centred = queries - mean
        covariance = centred.T @ centred / len(queries)
        scale = covariance.trace()
        if metric is Metric.INNER_PRODUCT:
            scale = scale + mean.square().sum()
        scale = scale.clamp(min=torch.finfo(queries.dtype).tiny)
        self.hessian = torch.eye(d, device=queries.device) + config.global_weight * d * (covariance / scale)
        self.scale = float(scale.sqrt()) * (1 if metric is Metric.INNER_PRODUCT else 2)

    def block_size(self, directions: int) -> int:
        """Documents to encode at a time, so that a block's tables and directions stay within 2**21 numbers each."""
        n_segments, _, ksub, dsub = self.codebooks.shape
        own = directions * ksub if dsub > 2 * directions else dsub**2  # of one segment at a time
        return block_of(max(n_segments * ksub, own), n_segments * dsub * directions)

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
        weights[:, :-1] = config.local_weight * closeness(local, u.dtype)
        weights[:, -1] = config.self_weight
        return u, weights

    def __call__(self, vectors: Tensor, residuals: Tensor, local: Tensor, start: Tensor | None = None) -> Tensor:
        """Codes of ``vectors (n, d)`` whose codes stand for ``residuals (n, d)``: int64 ``(n, nsplits)``.

        The search for them begins at the codes ``start``, or at the nearest codewords.
        """
        size = self.block_size(local.shape[1] + 1)
        blocks = []
        for i in range(0, len(vectors), size):
            part = slice(i, i + size)
            u, weights = self.directions(vectors[part], local[part])
            targets = torch.full_like(weights, -self.offset / self.scale)
            targets[:, -1] = 0  # the document itself as a query
            begin = None if start is None else start[part]
            blocks.append(self._search(vectors[part], residuals[part], u, weights, targets, local[part], begin))
        return torch.cat(blocks)

    @property
    def kappa(self) -> float:
        """What a squared error adds to the error of a score."""
        return 0.0 if self.metric is Metric.INNER_PRODUCT else 1 / self.scale

    def _search(
        self,
        vectors: Tensor,
        residuals: Tensor,
        directions: Tensor,
        weights: Tensor,
        targets: Tensor,
        local: Tensor,
        start: Tensor | None,
    ) -> Tensor:
        """Codes of one block."""
        return score_error_codes(
            residuals, self.codebooks, self.hessian, directions, weights, self.kappa, self.config.sweeps, start, targets
        )
