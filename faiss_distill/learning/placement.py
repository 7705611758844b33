"""Where documents are in the index: the list and the code of each, as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from faiss_distill.learning.students import Student
from faiss_distill.state import Codes, Int64


@dataclass(frozen=True)
class Placement:
    """The list of each document; codes follow the codebooks: the nearest ones under whatever student asks.

    Attributes:
        lists: int64 ``(n,)``.
    """

    lists: Int64

    def codes_of(self, student: Student, rows: Int64, vectors: Tensor) -> Tensor:
        """The codes of the documents ``rows (k,)``, with ``vectors (k, d)`` on a device: int64, one row each."""
        return student.encode(vectors, self.lists_of(rows, vectors.device))

    def lists_of(self, rows: Int64 | slice, device: torch.device) -> Tensor:
        """Their lists, int64 ``(k,)``."""
        return torch.from_numpy(self.lists[rows]).to(device)


@dataclass(frozen=True)
class CodedPlacement(Placement):
    """The list of each document, and its code, which stays until another is chosen.

    Attributes:
        codes: ``(n, nsplits * steps)``.
    """

    codes: Codes

    def codes_of(self, student: Student, rows: Int64 | slice, vectors: Tensor) -> Tensor:
        """The codes of the documents ``rows``, int64, one row each, on the device of ``vectors``."""
        return torch.from_numpy(self.codes[rows].astype(np.int64)).to(vectors.device)
