"""Similarity functions between teacher and student scores, one a file.

Every loss of :data:`LOSSES` is pure: ``(student_scores, teacher_scores, mask) -> scalar``, all of shape ``(nq, k)``,
scores already divided by the temperature, ``mask`` true where a candidate counts. :func:`contrastive` takes labels in
place of the teacher's scores, :func:`reconstruction` takes vectors.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from faiss_distill.losses.contrastive import contrastive
from faiss_distill.losses.kl import kl
from faiss_distill.losses.lambdarank import lambdarank
from faiss_distill.losses.listmle import listmle
from faiss_distill.losses.listnet import listnet
from faiss_distill.losses.margin_mse import margin_mse
from faiss_distill.losses.mse import mse
from faiss_distill.losses.ranknet import ranknet
from faiss_distill.losses.reconstruction import reconstruction

__all__ = [
    "LOSSES",
    "PAIRWISE",
    "Loss",
    "contrastive",
    "kl",
    "lambdarank",
    "listmle",
    "listnet",
    "margin_mse",
    "mse",
    "ranknet",
    "reconstruction",
]


class Loss(Protocol):
    """What the functions of :data:`LOSSES` have in common."""

    def __call__(self, student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score the student ``(nq, k)`` against the teacher ``(nq, k)``, over the candidates where ``mask`` is true."""


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "margin_mse": margin_mse,
    "ranknet": ranknet,
    "kl": kl,
    "listnet": listnet,
    "listmle": listmle,
    "lambdarank": lambdarank,
}
"""The losses that compare a student's scores with a teacher's, by name."""

PAIRWISE = frozenset({"ranknet", "lambdarank"})
"""The losses that compare all pairs: their time and memory grow with ``k ** 2``."""
