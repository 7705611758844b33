"""The score of additive codes as a torch module. Axes as in :mod:`faiss_distill.state`.

Residual and local search quantizers sum ``M`` codewords of all dimensions; their product forms do so in each of
``nsplits`` parts of the dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.learning.students.codewords import CodewordStudent

BEAM = 8
"""Partial codes that a beam search follows."""
SWEEPS = 3
"""Passes over the codebooks after the beam search, at most."""


def decode_additive(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Sums of codewords: ``codes (n, nsplits * M)``, ``codebooks (nsplits, M, ksub, dsub)`` to ``(n, d)``."""
    splits, steps, ksub, dsub = codebooks.shape
    flat = codes + torch.arange(splits * steps, device=codes.device) * ksub
    words = F.embedding(flat, codebooks.reshape(-1, dsub))
    return words.view(len(codes), splits, steps, dsub).sum(2).flatten(1)


def beam_codes(residuals: Tensor, codebooks: Tensor, beam: int = BEAM) -> Tensor:
    """Codes of low squared error, by beam search (Babenko and Lempitsky, CVPR 2014, DOI 10.1109/CVPR.2014.124).

    Args:
        residuals: what the codes stand for, ``(n, d)``.
        codebooks: ``(nsplits, M, ksub, dsub)``.
        beam: partial codes followed.

    Returns:
        Codes, int64 ``(n, nsplits * M)``.
    """
    n, (splits, steps, ksub, dsub) = len(residuals), codebooks.shape
    codes = torch.empty(n, splits * steps, dtype=torch.int64, device=residuals.device)
    rows = max(1, 2**22 // (beam * max(ksub, dsub)))
    for start in range(0, n, rows):
        for i, books in enumerate(codebooks):
            part = residuals[start : start + rows, None, i * dsub : (i + 1) * dsub]  # (b, beam so far, dsub)
            found = codes.new_empty(len(part), 1, 0)
            for book in books:
                errors = part.square().sum(2)[:, :, None] + book.square().sum(1) - 2 * part @ book.T
                best = errors.flatten(1).topk(min(beam, errors[0].numel()), largest=False).indices
                came, word = best // ksub, best % ksub
                found = torch.cat(
                    [found.gather(1, came[:, :, None].expand(-1, -1, found.shape[2])), word[:, :, None]], 2
                )
                part = part.gather(1, came[:, :, None].expand(-1, -1, dsub)) - book[word]
            codes[start : start + rows, i * steps : (i + 1) * steps] = found[:, 0]  # topk sorts
    return codes


def nearest_additive_codes(residuals: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of low squared error, by beam search and then one codebook at a time: int64 ``(n, nsplits * M)``."""
    rows = max(1, 2**24 // codebooks.shape[2])  # so that a table of errors stays within 64 MiB
    return torch.cat([_nearest(part, codebooks) for part in torch.split(residuals, rows)])


def _nearest(residuals: Tensor, codebooks: Tensor) -> Tensor:
    splits, steps, _, dsub = codebooks.shape
    codes = beam_codes(residuals, codebooks)
    error = residuals - decode_additive(codes, codebooks)
    for _ in range(SWEEPS if steps > 1 else 0):
        before = codes.clone()
        for i in range(splits):
            for m, book in enumerate(codebooks[i]):
                at, segment = i * steps + m, slice(i * dsub, (i + 1) * dsub)
                without = error[:, segment] + book[codes[:, at]]
                codes[:, at] = torch.addmm(book.square().sum(1), without, book.T, alpha=-2).argmin(1)
                error[:, segment] = without - book[codes[:, at]]
        if torch.equal(codes, before):
            break
    return codes


class AdditiveStudent(CodewordStudent):
    """Coarse centroids and additive codebooks as parameters."""

    def _nearest(self, residuals: Tensor) -> Tensor:
        return nearest_additive_codes(residuals, self.codebooks)

    def _decode(self, codes: Tensor) -> Tensor:
        return decode_additive(codes, self.codebooks)
