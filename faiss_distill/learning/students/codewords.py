"""What students whose codes are numbers of codewords have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faiss_distill.learning.students.student import Student
from faiss_distill.state import IndexState


class CodewordStudent(Student):
    """Coarse centroids and codebooks as parameters."""

    codebooks: nn.Parameter

    def __init__(self, state: IndexState, query_encoder: nn.Module | None = None) -> None:
        """Copy the state's arrays into parameters."""
        super().__init__(state, query_encoder)
        self.codebooks = nn.Parameter(torch.tensor(state.codebooks))

    @abstractmethod
    def _nearest(self, residuals: Tensor) -> Tensor:
        """Codes of least squared error, int64, of what they stand for, ``(n, d)``."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """What codes stand for: ``(n, d)``."""

    @torch.no_grad()
    def encode(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """Nearest codewords of ``vectors (n, d)`` in the lists ``assignment (n,)``: int64, one row a vector."""
        return self._nearest(self.residuals(vectors, assignment))

    def reconstruct(self, assignment: Tensor, codes: Tensor) -> Tensor:
        """Distill-VQ Eq. 2-3: ``(n, d)`` from lists ``(n,)`` and codes."""
        decoded = self._decode(codes)
        return decoded + F.embedding(assignment, self.centroids) if self.by_residual else decoded
