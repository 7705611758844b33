"""The search for query-aware product codes, compiled: the same codes as :mod:`~faiss_distill.learning.codes.product`.

Needs numba (the extra ``fast``), and CPU tensors of float32. Documents of a tile stay in the processor's cache, only
what a changed code changes is computed anew, and nothing is held for longer than a tile. Products with all codewords of
a segment, which are most of the arithmetic, are torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

TILE = 32
"""Documents at a time."""
DIMENSIONS = 16
"""Of the directions that are turned at a time: as many as a line of the cache holds."""
LANES = 8
"""Float32 numbers in a vector register: directions are padded to a multiple of it."""


def _compiled(function: Callable[..., Any]) -> Any:
    """The function, compiled at its first call, and kept for other processes where there is a folder to keep it in."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "boundscheck": False, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(**options)(function)


class FusedSearch:
    """What :func:`~faiss_distill.learning.codes.product.score_error_codes` finds, for the documents of one encoder.

    Args:
        queries: training queries behind the index's transforms, ``(nq, d)``.
        codebooks: ``(nsplits, ksub, dsub)``.
        hessian: ``(d, d)``.
        factor: what a query is multiplied by to be a direction.
        kappa: 0 for inner product, positive for L2, where directions are from the document to the query.
        sweeps: passes over the segments.
    """

    def __init__(
        self, queries: Tensor, codebooks: Tensor, hessian: Tensor, factor: float, kappa: float, sweeps: int
    ) -> None:
        """Lay the codebooks out by dimension, with the products of each two of these."""
        dsub = codebooks.shape[2]
        row, column = torch.triu_indices(dsub, dsub)
        products = codebooks[:, :, row] * codebooks[:, :, column] * torch.where(row == column, 1, 2)
        self._products = torch.cat([products, codebooks], dim=2).transpose(1, 2).contiguous()
        self._books = codebooks.transpose(1, 2).contiguous()
        self._squares = codebooks.square().sum(2)
        self._queries, self._hessian = queries.contiguous(), hessian.contiguous()
        self._factor, self._kappa, self._sweeps = np.float32(factor), np.float32(kappa), sweeps

    def __call__(
        self,
        vectors: Tensor,
        residuals: Tensor,
        local: Tensor,
        itself: Tensor,
        weights: Tensor,
        targets: Tensor,
        start: Tensor | None,
    ) -> Tensor:
        """Codes, int64 ``(n, nsplits)``, of documents with these local queries and weights ``(n, R)`` of directions.

        Of these the last are the documents, multiplied by ``itself (n,)``.
        """
        n, (n_segments, dsub, ksub), n_directions = len(vectors), self._books.shape, weights.shape[1]
        padded = -(-n_directions // LANES) * LANES
        roots = np.zeros((n, padded), np.float32)
        roots[:, :n_directions] = weights.sqrt().numpy()
        pulls = np.zeros((n, padded), np.float32)
        pulls[:, :n_directions] = roots[:, :n_directions] * targets.numpy()
        x, r, own_queries = vectors.contiguous().numpy(), residuals.contiguous().numpy(), local.contiguous().numpy()
        along_x = itself.numpy()
        books, squares, hessian = self._books.numpy(), self._squares.numpy(), self._hessian.numpy()
        codes = np.empty((n, n_segments), np.int64)
        if start is not None:
            codes[:] = start.numpy()
        size = min(TILE, n)
        directions = np.zeros((size, n_segments * dsub + 1, padded), np.float32)  # a row more: they are read in pairs
        features, tables = torch.empty(n_segments, size, self._products.shape[1]), torch.empty(n_segments, size, ksub)
        error, curved, pull, wrong = (np.empty((size, k), np.float32) for k in (*[n_segments * dsub] * 3, padded))
        for first in range(0, n, size):
            part = slice(first, min(first + size, n))
            k = part.stop - first
            if start is None:
                _nearest(r[part], books, squares, codes[part])
            _prepare(
                x[part], r[part], self._queries.numpy(), own_queries[part], along_x[part], roots[part], pulls[part],
                self._factor, self._kappa, books, hessian, codes[part], directions, features.numpy(), error, curved,
                pull, wrong,
            )  # fmt: skip
            torch.bmm(features[:, :k], self._products, out=tables[:, :k])
            pushed = torch.from_numpy(error[:k]) @ self._hessian
            _descend(
                r[part], roots[part], self._kappa, books, squares, hessian, tables.numpy(), directions, pull,
                self._sweeps, codes[part], error, curved, pushed.numpy(), wrong,
            )  # fmt: skip
        return torch.from_numpy(codes)


@_compiled
def _add_products(scale, factors, first, rows, out):  # type: ignore[no-untyped-def]
    """``out += scale * factors[first:first + len(rows)] @ rows``, four rows at a time."""
    n, width = rows.shape
    j = 0
    while j + 4 <= n:
        a, b = scale * factors[first + j], scale * factors[first + j + 1]
        c, d = scale * factors[first + j + 2], scale * factors[first + j + 3]
        for k in range(width):
            out[k] += a * rows[j, k] + b * rows[j + 1, k] + c * rows[j + 2, k] + d * rows[j + 3, k]
        j += 4
    while j < n:
        a = scale * factors[first + j]
        for k in range(width):
            out[k] += a * rows[j, k]
        j += 1


@_compiled
def _argmin(values):  # type: ignore[no-untyped-def]
    """The first of the least: two passes, of which the longer one is vectorised."""
    least = values[0]
    for k in range(1, len(values)):
        least = min(least, values[k])
    for k in range(len(values)):
        if values[k] == least:
            return k
    return 0


@_compiled
def _nearest(residuals, books, squares, codes):  # type: ignore[no-untyped-def]
    """The nearest codeword of each segment."""
    n_segments, dsub, ksub = books.shape
    cost = np.empty(ksub, np.float32)
    for m in range(n_segments):
        for i in range(len(residuals)):
            for k in range(ksub):
                cost[k] = squares[m, k]
            _add_products(np.float32(-2), residuals[i], m * dsub, books[m], cost)
            codes[i, m] = _argmin(cost)


@_compiled
def _gather(x, queries, local, itself, roots, factor, relative, rows, u):  # type: ignore[no-untyped-def]
    """A document's directions times the roots of their weights: ``u (d, R)``, and on the way there ``rows (R, d)``."""
    d, near = len(x), len(local)
    for r in range(near):
        row, w = local[r], roots[r] * factor
        if row < 0:
            rows[r] = 0
        else:
            for j in range(d):
                rows[r, j] = w * (queries[row, j] - relative * x[j])
    w = roots[near] * itself
    for j in range(d):
        rows[near, j] = w * x[j]
    for a in range(0, d, DIMENSIONS):
        for j in range(a, min(a + DIMENSIONS, d)):
            for r in range(near + 1):
                u[j, r] = rows[r, j]


@_compiled
def _gram(u, a, hessian, dsub, out):  # type: ignore[no-untyped-def]
    """The upper triangle of ``H + u u^T`` of the segment that begins at ``a``, row by row, by squares of two."""
    n = u.shape[1]
    for p in range(0, dsub, 2):
        this = p * dsub - p * (p - 1) // 2 - p  # where this row's column 0 would be
        below = this + dsub - p - 1
        for t in range(p, dsub, 2):
            x00, x01, x10, x11 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for r in range(n):
                u0, u1, v0, v1 = u[a + p, r], u[a + p + 1, r], u[a + t, r], u[a + t + 1, r]
                x00 += u0 * v0
                x01 += u0 * v1
                x10 += u1 * v0
                x11 += u1 * v1
            out[this + t] = x00 + hessian[a + p, a + t]
            if t + 1 < dsub:
                out[this + t + 1] = x01 + hessian[a + p, a + t + 1]
                out[below + t + 1] = x11 + hessian[a + p + 1, a + t + 1]
            if t > p and p + 1 < dsub:
                out[below + t] = x10 + hessian[a + p + 1, a + t]


@_compiled
def _times(gram, v, w, of_v, of_w):  # type: ignore[no-untyped-def]
    """A symmetric matrix, of which ``gram`` is the upper triangle row by row, times two vectors."""
    n, at = len(v), 0
    of_v[:] = 0
    of_w[:] = 0
    for p in range(n):
        a, b, c, e = v[p], w[p], gram[at] * v[p], gram[at] * w[p]
        for t in range(1, n - p):
            g = gram[at + t]
            c += g * v[p + t]
            e += g * w[p + t]
            of_v[p + t] += g * a
            of_w[p + t] += g * b
        of_v[p] += c
        of_w[p] += e
        at += n - p


@_compiled
def _curve(u, a, hessian, dsub, along, e, out, at, scale):  # type: ignore[no-untyped-def]
    """``out += scale * (H + u u^T) e`` of a segment, where ``along`` is ``u^T e``."""
    for p in range(dsub):
        g = np.float32(0)
        for r in range(len(along)):
            g += along[r] * u[a + p, r]
        for t in range(dsub):
            g += hessian[a + p, a + t] * e[t]
        out[at + p] += scale * g


@_compiled
def _prepare(  # type: ignore[no-untyped-def]
    x, residuals, queries, local, itself, roots, pulls, factor, kappa, books, hessian,
    codes, directions, features, error, curved, pull, wrong,
):  # fmt: skip
    """What a tile's search begins with: directions, what the tables are made of, and errors."""
    n_segments, dsub, _ = books.shape
    n_products, n_directions = dsub * (dsub + 1) // 2, roots.shape[1]
    rows = np.empty((n_directions, n_segments * dsub), np.float32)
    for i in range(len(x)):
        u = directions[i]
        _gather(x[i], queries, local[i], itself[i], roots[i], factor, np.float32(kappa > 0), rows, u)
        square = np.float32(0)
        for r in range(n_directions):
            wrong[i, r] = -pulls[i, r]
        for m in range(n_segments):
            a, row = m * dsub, features[m, i]
            for j in range(a, a + dsub):
                e = residuals[i, j] - books[m, j - a, codes[i, m]]
                error[i, j] = e
                square += e * e
                for r in range(n_directions):
                    wrong[i, r] += e * u[j, r]
            _gram(u, a, hessian, dsub, row)
            segment = slice(a, a + dsub)
            _times(row[:n_products], residuals[i, segment], error[i, segment], row[n_products:], curved[i, segment])
            for j in range(n_products, n_products + dsub):
                row[j] *= -2
        if kappa > 0:
            for j in range(n_segments * dsub):
                g = np.float32(0)
                for r in range(n_directions):
                    g += u[j, r] * roots[i, r]
                pull[i, j] = g
            for r in range(n_directions):
                wrong[i, r] += kappa * square * roots[i, r]


@_compiled
def _add_squared(r, pull, kappa, total, book, squares, near, along, table):  # type: ignore[no-untyped-def]
    """What squared errors add to a table, for L2: ``kappa N (kappa N w + 2 (r - c) pull)``, ``N = |r - c|^2``."""
    dsub, ksub = book.shape
    square, pulled = np.float32(0), np.float32(0)
    for j in range(dsub):
        square += r[j] * r[j]
        pulled += r[j] * pull[j]
    for k in range(ksub):
        near[k] = square + squares[k]
        along[k] = pulled
    _add_products(np.float32(-2), r, 0, book, near)
    _add_products(np.float32(-1), pull, 0, book, along)
    for k in range(ksub):
        table[k] += kappa * near[k] * (kappa * total * near[k] + 2 * along[k])


@_compiled
def _descend(  # type: ignore[no-untyped-def]
    residuals, roots, kappa, books, squares, hessian, tables, directions, pull, sweeps,
    codes, error, curved, pushed, wrong,
):  # fmt: skip
    """Coordinate descent over the codes of a tile, segment by segment so that a codebook stays in the cache."""
    n, (n_segments, dsub, ksub), n_directions = len(residuals), books.shape, roots.shape[1]
    cost, near = np.empty(ksub, np.float32), np.empty(ksub, np.float32)
    step, linear, along = np.empty(dsub, np.float32), np.empty(dsub, np.float32), np.empty(n_directions, np.float32)
    total = np.zeros(n, np.float32)
    if kappa > 0:
        for i in range(n):
            for r in range(n_directions):
                total[i] += roots[i, r] * roots[i, r]
        for m in range(n_segments):
            a = m * dsub
            for i in range(n):
                r_, p_ = residuals[i, a : a + dsub], pull[i, a : a + dsub]
                _add_squared(r_, p_, kappa, total[i], books[m], squares[m], near, cost, tables[m, i])
    moving = np.ones(n, np.bool_)
    for _ in range(sweeps):
        moved = np.zeros(n, np.bool_)
        for m in range(n_segments):
            a = m * dsub
            for i in range(n):
                if not moving[i]:
                    continue
                u = directions[i]
                for p in range(dsub):
                    g = np.float32(0)
                    for r in range(n_directions):
                        g += u[a + p, r] * wrong[i, r]
                    linear[p] = g + pushed[i, a + p] - curved[i, a + p]
                square, rest = np.float32(0), np.float32(0)
                for k in range(ksub):
                    cost[k] = tables[m, i, k]
                if kappa > 0:
                    for r in range(n_directions):
                        rest += roots[i, r] * wrong[i, r]
                    for j in range(dsub):
                        rest -= pull[i, a + j] * error[i, a + j]
                        square += error[i, a + j] * error[i, a + j]
                    rest = kappa * (rest - kappa * square * total[i])
                    for j in range(dsub):
                        linear[j] += 2 * rest * residuals[i, a + j] - kappa * square * pull[i, a + j]
                    for k in range(ksub):
                        cost[k] += 2 * rest * squares[m, k]
                _add_products(np.float32(-2), linear, 0, books[m], cost)
                best = _argmin(cost)
                if best == codes[i, m]:
                    continue
                moved[i] = True
                codes[i, m] = best
                now = np.float32(0)
                along[:] = 0
                for j in range(dsub):
                    new = residuals[i, a + j] - books[m, j, best]
                    step[j] = new - error[i, a + j]
                    error[i, a + j] = new
                    now += new * new
                    for r in range(n_directions):
                        along[r] += step[j] * u[a + j, r]
                _curve(u, a, hessian, dsub, along, step, curved[i], a, np.float32(1))
                _add_products(np.float32(1), step, 0, hessian[a : a + dsub], pushed[i])
                for r in range(n_directions):
                    wrong[i, r] += along[r] + kappa * (now - square) * roots[i, r]
        if not moved.any():
            break
        moving = moved
