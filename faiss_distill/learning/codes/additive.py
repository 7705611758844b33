r"""Query-aware codes of additive codebooks, by coordinate descent over codewords that overlap.

The cost of a code is that of :mod:`faiss_distill.learning.codes.product`. What a codeword may cancel of another's error
is more, since several of them cover the same dimensions, and there are no nearest codes to begin with: a beam search
finds some. Coordinate descent over the codebooks then sees, for codeword :math:`c` of one of them and the error
:math:`e` of the others in its dimensions,

.. math:: c^\top (H + \sum_r w_r u_r u_r^\top) c - 2 c^\top (H e + \sum_r w_r a_r u_r)
    + \kappa N (\kappa N \sum_r w_r + 2 \sum_r w_r a_r - 2 c^\top \sum_r w_r u_r), \quad N = \|e - c\|^2,

up to a constant, with :math:`a_r` the score error without that codeword and without :math:`\kappa N`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.config import DistillConfig
from faiss_distill.learning.codes.nearest import beam_codes, decode
from faiss_distill.learning.codes.product import QueryAwareEncoder, block_of
from faiss_distill.state import Metric

TABLE = 2**28
"""Numbers in the table of queries and codewords, at most: 1 GiB. Beyond it each document has its own."""


class AdditiveEncoder(QueryAwareEncoder):
    """Query-aware codes of additive codebooks ``(nsplits, steps, ksub, dsub)``.

    Holds a table of ``nq * nsplits * steps * ksub`` numbers, but none of more than ``2**28``.
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
        """Take the moments of the queries, and their products with all codewords."""
        super().__init__(queries, codebooks, metric, config, offset, uneven)
        dsub = codebooks.shape[-1]
        self._books = codebooks.flatten(0, 1)
        self._segments = [slice(i * dsub, (i + 1) * dsub) for i in range(len(codebooks)) for _ in codebooks[i]]
        self._squares: list[Tensor] | None = None
        if len(queries) * self._books.shape[0] * self._books.shape[1] <= TABLE:
            self._squares = [
                (queries[:, s] @ book.T).square_() for s, book in zip(self._segments, self._books, strict=True)
            ]

    def block_size(self, directions: int) -> int:
        """Documents to encode at a time, see :func:`~faiss_distill.learning.codes.product.block_of`."""
        splits, steps, ksub, dsub = self.codebooks.shape
        wide = max(splits * dsub, 0 if self._squares else ksub) * directions
        return block_of(splits * steps * ksub, wide, self.queries.device)

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
        kappa, total = self.kappa, weights.sum(1, keepdim=True)
        curved = [self._curvature(m, vectors, directions, weights, local) for m in range(len(self._books))]
        pull = torch.bmm(weights[:, None], directions)[:, 0]

        def score_error(e: Tensor) -> Tensor:
            """Of all directions, less the target: ``(n, R)``."""
            return torch.bmm(directions, e[:, :, None])[:, :, 0] + kappa * e.square().sum(1, keepdim=True) - targets

        def cost(codes: Tensor) -> Tensor:
            e = residuals - decode(codes, self.codebooks)
            return ((e @ self.hessian) * e).sum(1) + (weights * score_error(e).square()).sum(1)

        codes = beam_codes(residuals, self.codebooks)
        if start is not None:  # what was best for other codebooks may hold on to too little of these
            codes = torch.where((cost(start) <= cost(codes))[:, None], start, codes)
        e = residuals - decode(codes, self.codebooks)
        he, wrong = e @ self.hessian, score_error(e)
        # What each codeword has to do with each direction.
        words = [
            torch.bmm(directions[:, :, s], book.index_select(0, codes[:, m])[:, :, None])[:, :, 0]
            for m, (book, s) in enumerate(zip(self._books, self._segments, strict=True))
        ]
        for _ in range(self.config.sweeps):
            moved = False
            for m, (book, s) in enumerate(zip(self._books, self._segments, strict=True)):
                u, block = directions[:, :, s], self.hessian[s, s]
                old, old_error = book.index_select(0, codes[:, m]), e[:, s].square().sum(1, keepdim=True)
                without = e[:, s] + old
                rest = wrong + words[m] - kappa * old_error
                linear = torch.bmm((weights * rest)[:, None], u)[:, 0] + he[:, s] + old @ block
                table = torch.addmm(curved[m], linear, book.T, alpha=-2)
                if kappa:
                    near = without.square().sum(1, keepdim=True) - 2 * without @ book.T + book.square().sum(1)
                    along = 2 * (weights * rest).sum(1, keepdim=True) - 2 * pull[:, s] @ book.T
                    table += kappa * near * (kappa * total * near + along)
                best = table.argmin(1)
                which = (best != codes[:, m]).nonzero()[:, 0]
                if len(which) == 0:
                    continue
                moved = True
                codes[:, m] = best
                new = book.index_select(0, best)
                e[:, s] = without - new
                he.index_add_(0, which, (old - new).index_select(0, which) @ self.hessian[s])
                along = torch.bmm(u.index_select(0, which), new.index_select(0, which)[:, :, None])[:, :, 0]
                words[m].index_copy_(0, which, along)
                wrong = rest - words[m] + kappa * e[:, s].square().sum(1, keepdim=True)
            if not moved:
                break
        return codes

    def _curvature(self, m: int, vectors: Tensor, directions: Tensor, weights: Tensor, local: Tensor) -> Tensor:
        r""":math:`c^\top (H + \sum_r w_r u_r u_r^\top) c` of the codewords of one codebook: ``(n, ksub)``."""
        s, book = self._segments[m], self._books[m]
        plain = ((book @ self.hessian[s, s]) * book).sum(1)
        if self._squares is None or local.shape[1] == 0:
            along = directions[:, :, s] @ book.T
            return plain + torch.bmm(weights[:, None], along.square())[:, 0]
        # u_r is the query, for L2 less the document, over the scale: the squares of queries come from the table.
        near, factor = weights[:, :-1], self.factor
        squares = F.embedding_bag(local.clamp(min=0), self._squares[m], per_sample_weights=near, mode="sum")
        itself = directions[:, -1, s] @ book.T  # the document as a query
        if self.metric is Metric.L2:
            x, mean = (
                vectors[:, s] @ book.T,
                F.embedding_bag(local.clamp(min=0), self.queries[:, s], per_sample_weights=near, mode="sum"),
            )
            squares += x * (x * near.sum(1, keepdim=True) - 2 * mean @ book.T)
        return plain + factor**2 * squares + weights[:, -1:] * itself.square()
