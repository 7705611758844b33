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

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.config import DistillConfig
from faiss_distill.learning.codes.compiled import fused
from faiss_distill.learning.codes.nearest import nearest_codes
from faiss_distill.learning.parallel import in_threads
from faiss_distill.state import Metric

if TYPE_CHECKING:
    from faiss_distill.learning.codes.fused import FusedSearch

SHARE = 512
"""Documents that a thread takes at a time, if the search is compiled."""
SAME = 1e-3
"""Lengths of queries that differ by no more than this share of one are the same."""
STANDS_IN, UNEVEN = 2.0, 0.25
"""How much more a document as a query weighs for a local query that it lacks, relative to the weight of that one, times
the relative standard deviation of the documents' lengths, but that up to the second number. Short ones lack most,
without being looked for less."""
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
    blocks = torch.stack([hessian[s, s] for s in segments])
    roots = weights.sqrt()
    # Segments come first, and each one's directions side by side in memory, times the roots of the weights.
    parts = directions.new_empty(n_segments, n, directions.shape[1], dsub)
    torch.mul(directions.view(n, -1, n_segments, dsub).permute(2, 0, 1, 3), roots[None, :, :, None], out=parts)
    r = residuals.view(n, n_segments, dsub).transpose(0, 1).contiguous()
    codes = (nearest_codes(residuals, codebooks) if start is None else start).T.contiguous()
    e = r - books.gather(1, codes[:, :, None].expand(-1, -1, dsub))
    # What a segment's error adds to the score errors of all directions, and by these and H to its own linear term.
    score_error, curved = residuals.new_zeros(n, directions.shape[1]), torch.bmm(e, blocks)
    for m, u in enumerate(parts):
        along = torch.bmm(u, e[m, :, :, None])
        score_error += along[:, :, 0]
        curved[m] += torch.bmm(along.transpose(1, 2), u)[:, 0]
    if targets is not None:  # from here on the score error less its target: it enters only as a constant
        score_error -= roots * targets
    # Per segment, the part of the cost that no other segment changes: (n, ksub) each.
    own = [_quadratic(*each) for each in zip(blocks, parts, r, books, strict=True)]
    if kappa:
        score_error += kappa * roots * e.square().sum((0, 2))[:, None]
        total, squares = weights.sum(1), books.square().sum(2)
        pull = torch.stack([torch.bmm(roots[:, None], u)[:, 0] for u in parts])
        for m, book in enumerate(books):
            error = _squared(r[m], book)
            along = (r[m] * pull[m]).sum(1, keepdim=True) - pull[m] @ book.T
            own[m] += kappa * error * (kappa * total[:, None] * error + 2 * along)
    pushed = (e.transpose(0, 1).reshape(n, -1) @ hessian).view(n, n_segments, dsub).transpose(0, 1).contiguous()
    for _ in range(sweeps):
        moved = False
        for m, (u, book) in enumerate(zip(parts, books, strict=True)):
            linear = torch.bmm(score_error[:, None], u)[:, 0] + pushed[m] - curved[m]
            if kappa:
                square = e[m].square().sum(1)
                rest = kappa * ((roots * score_error).sum(1) - (pull[m] * e[m]).sum(1) - kappa * square * total)
                linear += 2 * rest[:, None] * r[m] - kappa * square[:, None] * pull[m]
            cost = torch.addmm(own[m], linear, book.T, alpha=-2)
            if kappa:
                cost += 2 * rest[:, None] * squares[m]
            best = cost.argmin(1)
            which = (best != codes[m]).nonzero()[:, 0]
            if len(which) == 0:
                continue
            moved = True
            codes[m] = best
            # index_select and index_copy_ take a fraction of the time of indexing with a tensor.
            new = r[m].index_select(0, which) - book.index_select(0, best.index_select(0, which))
            step = new - e[m].index_select(0, which)
            e[m].index_copy_(0, which, new)
            u = u.index_select(0, which)
            along = torch.bmm(u, step[:, :, None])
            curved[m].index_add_(0, which, torch.bmm(along.transpose(1, 2), u)[:, 0] + step @ blocks[m])
            changed = along[:, :, 0]
            if kappa:
                changed = changed + kappa * (new.square().sum(1) - square.index_select(0, which))[
                    :, None
                ] * roots.index_select(0, which)
            score_error.index_add_(0, which, changed)
            others = (step @ hessian[segments[m]]).view(-1, n_segments, dsub).transpose(0, 1)
            pushed.index_add_(1, which, others)
        if not moved:
            break
    return codes.T.contiguous()


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
    words = book.T.contiguous()
    products = words.index_select(0, row) * words.index_select(0, column) * torch.where(row == column, 1, 2)[:, None]
    square = gram.flatten(1).index_select(1, row * dsub + column) @ products
    return torch.addmm(square, torch.bmm(gram, residuals[:, :, None])[:, :, 0], book.T, alpha=-2)


def _squared(vectors: Tensor, book: Tensor) -> Tensor:
    """Squared distances of ``vectors (n, dsub)`` from the codewords ``book (ksub, dsub)``: ``(n, ksub)``."""
    return vectors.square().sum(1, keepdim=True) - 2 * vectors @ book.T + book.square().sum(1)


def closeness(local: Tensor, dtype: torch.dtype) -> Tensor:
    """How much each of a document's own queries counts, best first: int64 ``(n, R)``, -1 for none, to ``(n, R)``."""
    rank = torch.arange(local.shape[1], device=local.device, dtype=dtype)
    return (local >= 0) / (1 + rank / HALF)


def block_of(tables: int, directions: int, device: torch.device) -> int:
    """Documents in a block, of which each takes so many numbers: 16 or more, unless the directions are very many.

    A block stays within 2**23 numbers of either kind, or within 2**27 on a GPU: the more documents, the less small
    operations cost, of which other threads wait for each.
    """
    numbers, most = (2**23, 2**10) if device.type == "cpu" else (2**27, 2**14)
    few = max(16, min(most, numbers // tables))
    return max(1, min(few, numbers // directions))


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
        uneven: standard deviation of the documents' lengths, relative to their mean.
    """

    def __init__(
        self,
        queries: Tensor,
        codebooks: Tensor,
        metric: Metric,
        config: DistillConfig,
        offset: float = 0.0,
        uneven: float = 0.0,
    ) -> None:
        """Take the moments of the queries."""
        d = queries.shape[1]
        self.queries, self.codebooks, self.metric, self.config = queries, codebooks, metric, config
        self.offset, self._stands_in = offset, STANDS_IN * min(uneven, UNEVEN)
        mean = queries.mean(0)
        centred = queries - mean
        covariance = centred.T @ centred / len(queries)
        scale = covariance.trace()
        if metric is Metric.INNER_PRODUCT:
            scale = scale + mean.square().sum()
        scale = scale.clamp(min=torch.finfo(queries.dtype).tiny)
        self.hessian = torch.eye(d, device=queries.device) + config.global_weight * d * (covariance / scale)
        root = float(scale.sqrt())
        self.scale = root if metric is Metric.INNER_PRODUCT else 2 * root
        self.factor = 1 / root
        lengths = queries.norm(dim=1)
        self._length = float(lengths.square().mean().sqrt())
        self._same_length = float(lengths.std(correction=0)) <= SAME * self._length
        self._directed = queries * self.factor

    def block_size(self, directions: int) -> int:
        """Documents to encode at a time, see :func:`block_of`."""
        n_segments, _, ksub, dsub = self.codebooks.shape
        own = directions * ksub if dsub > 2 * directions else dsub**2  # of one segment at a time
        return block_of(max(n_segments * ksub, own), n_segments * dsub * directions, self.queries.device)

    def directions(self, vectors: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The score-error directions of ``vectors (n, d)`` and their weights: ``(n, R, d)`` and ``(n, R)``.

        The last is that of the document as a query.

        Args:
            vectors: documents behind the index's transforms.
            local: each document's own queries, int64 ``(n, local_queries)``, -1 for none.
        """
        near = F.embedding(local.clamp(min=0), self._directed)
        u = torch.empty(len(near), near.shape[1] + 1, near.shape[2], dtype=near.dtype, device=near.device)
        u[:, :-1] = near
        if self.metric is Metric.L2:
            u[:, :-1] -= vectors[:, None] * self.factor
        torch.mul(vectors, self.itself(vectors)[:, None], out=u[:, -1])
        return u, self.weights(local)

    def itself(self, vectors: Tensor) -> Tensor:
        """What documents ``(n, d)`` are multiplied by to be a direction, each as a query of its own: ``(n,)``.

        For L2 the document as a query is where it is, and its direction 0, unless queries all have the same length.
        """
        if self.metric is Metric.L2 and not self._same_length:
            return vectors.new_zeros(len(vectors))
        scaled: Tensor = self._length / vectors.norm(dim=1).clamp(min=1e-30)
        return self.factor * (scaled - 1 if self.metric is Metric.L2 else scaled)

    def weights(self, local: Tensor) -> Tensor:
        """Those of the directions of documents with these queries of their own: ``(n, R)``.

        Where documents differ in length, the document as a query weighs more the more local queries it lacks. Otherwise
        short ones would be less exact than the long ones that they compete with, for the queries to come as well.
        """
        weights = self.queries.new_empty(len(local), local.shape[1] + 1)
        near = closeness(local, weights.dtype)
        missing = closeness(torch.zeros_like(local[:1]), weights.dtype).sum() - near.sum(1)
        weights[:, :-1] = self.config.local_weight * near
        weights[:, -1] = self.config.self_weight * (1 + self._stands_in * missing.clamp(min=0))
        return weights

    def __call__(self, vectors: Tensor, residuals: Tensor, local: Tensor, start: Tensor | None = None) -> Tensor:
        """Codes of ``vectors (n, d)`` whose codes stand for ``residuals (n, d)``: int64 ``(n, nsplits)``.

        The search for them begins at the codes ``start``, or at the nearest codewords.
        """

        def search(part: slice) -> Tensor:
            x, r, own = vectors[part], residuals[part], local[part]
            targets = self.queries.new_full((len(own), own.shape[1] + 1), -self.offset / self.scale)
            targets[:, -1] = 0  # the document itself as a query
            begin = None if start is None else start[part]
            if self._fused is not None:
                codes: Tensor = self._fused(x, r, own, self.itself(x), self.weights(own), targets, begin)
                return codes
            return self._search(x, r, *self.directions(x, own), targets, own, begin)

        size = SHARE if self._fused is not None else self.block_size(local.shape[1] + 1)
        return in_threads(search, len(vectors), size, vectors.device)

    @property
    def compiled(self) -> bool:
        """Whether the search for codes is compiled."""
        return self._fused is not None

    @cached_property
    def _fused(self) -> FusedSearch | None:
        """The compiled search, where there is one for these codebooks."""
        books, few = self.codebooks, 2 * (self.config.local_queries + 1)
        if books.shape[1] > 1 or books.shape[3] > few or self.queries.dtype != torch.float32:
            return None
        module = fused() if self.queries.device.type == "cpu" else None
        if module is None:
            return None
        kappa, sweeps = self.kappa, self.config.sweeps
        search: FusedSearch = module.FusedSearch(self.queries, books[:, 0], self.hessian, self.factor, kappa, sweeps)
        return search

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
