"""The score of product and additive codes as a torch module (Distill-VQ Eq. 2-5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faiss_distill.learning.codes.nearest import decode, nearest_codes
from faiss_distill.learning.students.student import Student
from faiss_distill.state import IndexState


class CodebookStudent(Student):
    """Coarse centroids and codebooks as parameters."""

    codebooks: nn.Parameter

    def __init__(self, state: IndexState, query_encoder: nn.Module | None = None) -> None:
        """Copy the state's arrays into parameters."""
        super().__init__(state, query_encoder)
        self.codebooks = nn.Parameter(torch.tensor(state.codebooks))

    @torch.no_grad()
    def encode(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """Nearest codes of ``vectors (n, d)`` in the lists ``assignment (n,)``: int64, one row a vector."""
        return nearest_codes(self.residuals(vectors, assignment), self.codebooks)

    def reconstruct(self, assignment: Tensor, codes: Tensor) -> Tensor:
        """Distill-VQ Eq. 2-3: ``(n, d)`` from lists ``(n,)`` and codes."""
        decoded = decode(codes, self.codebooks)
        return decoded + self.centroids.index_select(0, assignment) if self.by_residual else decoded
