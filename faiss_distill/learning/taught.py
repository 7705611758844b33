"""Queries with what the teacher found for them, and as the student has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.data import query_encoders
from faiss_distill.data.queries import Queries
from faiss_distill.learning.students import Student
from faiss_distill.state import Float32, Int64, Transforms


@dataclass(frozen=True)
class Taught:
    """Queries with their exact Top-K.

    Attributes:
        queries: ``nq`` of them.
        top: corpus rows, best first, int64 ``(nq, K)``.
        scores: their exact scores, float32 ``(nq, K)``.
        relevant: corpus rows of the documents labelled relevant, -1 as padding, int64 ``(nq, r)``, or None.
    """

    queries: Queries
    top: Int64
    scores: Float32
    relevant: Int64 | None = None

    def take(self, which: slice) -> Taught:
        """Some of them."""
        relevant = None if self.relevant is None else self.relevant[which]
        return Taught(self.queries.take(which), self.top[which], self.scores[which], relevant)


class StudentQueries:
    """Query vectors as the student has them, behind the index's transforms (Distill-VQ Eq. 5)."""

    def __init__(self, queries: Queries, transforms: Transforms, device: torch.device) -> None:
        """Transform them once, unless they come from an encoder that learns."""
        self._inputs, self._device = queries.inputs, device
        if queries.inputs is None:
            self._fixed = torch.from_numpy(transforms(queries.vectors))
        else:
            arrays = [step and tuple(torch.from_numpy(a).to(device) for a in step) for step in transforms.steps]
            self._steps = arrays

    def __call__(self, student: Student, batch: Tensor) -> Tensor:
        """The queries ``batch``, int64 ``(nq,)``: ``(nq, d)`` on the device, with the encoder's gradient."""
        if student.query_encoder is None or self._inputs is None:
            return self._fixed[batch].to(self._device)
        return self._transform(query_encoders.apply(student.query_encoder, self._inputs[batch.numpy()], self._device))

    def all(self, student: Student) -> Tensor:
        """All of them, without a gradient and with the encoder in evaluation mode."""
        if student.query_encoder is None or self._inputs is None:
            return self._fixed.to(self._device)
        return self._transform(query_encoders.embed(student.query_encoder, self._inputs, self._device))

    def _transform(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = F.normalize(x) if step is None else x @ step[0] + step[1]
        return x
