"""Where documents are in the index: the list and the code of each, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from faiss_distill.learning.students import Student
from faiss_distill.state import Bool, Codes, Int64


@dataclass(frozen=True)
class Placement:
    """The list of each document; codes follow the codebooks: the nearest ones under whatever student asks.

    Attributes:
        lists: int64 ``(n,)``.
    """

    lists: Int64

    def codes_of(self, student: Student, rows: Int64, vectors: Callable[[], Tensor]) -> Tensor:
        """The codes of the documents ``rows (k,)``, int64, one row each, by their ``vectors (k, d)`` if need be."""
        return student.encode(vectors(), self.lists_of(rows, student.centroids.device))

    def stored(self) -> dict[str, Tensor]:
        """Its arrays by name, as :func:`restored_placement` takes them."""
        return {name: torch.from_numpy(array) for name, array in vars(self).items()}

    def lists_of(self, rows: Int64, device: torch.device) -> Tensor:
        """Their lists, int64 ``(k,)``."""
        return torch.from_numpy(self.lists[rows]).to(device)


@dataclass(frozen=True)
class CodedPlacement(Placement):
    """The list of each document, and its code, which stays until another is chosen.

    Attributes:
        codes: ``(n, nsplits * steps)``.
        known: which documents have a code at all, bool ``(n,)``.
        fresh: which have that of the student who was last asked for codes, bool ``(n,)``.
    """

    codes: Codes
    known: Bool
    fresh: Bool

    def codes_of(self, student: Student, rows: Int64, _: Callable[[], Tensor]) -> Tensor:
        """The codes of the documents ``rows (k,)``, int64, one row each."""
        assert self.known[rows].all(), "a document is looked at whose code was not chosen"
        return torch.from_numpy(self.codes[rows].astype(np.int64)).to(student.centroids.device)


def restored_placement(arrays: Mapping[str, Tensor]) -> Placement:
    """A placement from its arrays."""
    kind = CodedPlacement if "codes" in arrays else Placement
    return kind(**{name: array.numpy() for name, array in arrays.items()})
