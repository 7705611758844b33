"""A student of lists alone: its codes are the vectors themselves."""

from __future__ import annotations

from torch import Tensor

from faiss_distill.learning.students.student import Student


class ListStudent(Student):
    """Coarse centroids as parameters; a document counts with its exact vector once its list is probed.

    What an index without codebooks stores is near enough to that, and nothing in it can learn.
    """

    codebooks = None

    def encode(self, vectors: Tensor, assignment: Tensor) -> Tensor:
        """The vectors: ``(n, d)``."""
        return vectors

    def reconstruct(self, assignment: Tensor, codes: Tensor) -> Tensor:
        """The vectors: ``(n, d)``."""
        return codes
