"""The IVFPQ score as a torch module. Axes as in :mod:`faiss_distill.learning.students.student`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.learning.students.codewords import CodewordStudent


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


class IVFPQStudent(CodewordStudent):
    """Coarse centroids and PQ codebooks as parameters."""

    def _nearest(self, residuals: Tensor) -> Tensor:
        return nearest_codes(residuals, self.codebooks)

    def _decode(self, codes: Tensor) -> Tensor:
        return decode(codes, self.codebooks)
