"""Where documents are in the index: the list and the code of each, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from faiss_distill.columns import column, copied
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
        return {name: torch.from_numpy(array) for name, array in vars(self).items() if array is not None}

    def with_codes(self, rows: Int64, codes: Codes) -> CodedPlacement:
        """The same with fresh ``codes (k, nsplits * steps)`` of the documents ``rows (k,)``, ascending."""
        return CodedPlacement(
            self.lists, codes, np.ones(len(rows), dtype=bool), None if len(rows) == len(self.lists) else rows
        )

    def lists_of(self, rows: Int64, device: torch.device) -> Tensor:
        """Their lists, int64 ``(k,)``."""
        return torch.from_numpy(self.lists[rows]).to(device)


@dataclass(frozen=True)
class CodedPlacement(Placement):
    """The list of each document, and the code of those that were looked at, which stays until another is chosen.

    Attributes:
        codes: one row for each of ``rows``, ``(k, nsplits * steps)``.
        fresh: which of them are the choice of the student who was last asked for codes, bool ``(k,)``.
        rows: the documents that have a code, ascending int64 ``(k,)``; None for all.
    """

    codes: Codes
    fresh: Bool
    rows: Int64 | None = None

    def codes_of(self, student: Student, rows: Int64, _: Callable[[], Tensor]) -> Tensor:
        """The codes of the documents ``rows (k,)``, int64, one row each."""
        at, known = self.find(rows)
        assert known.all(), "a document is looked at whose code was not chosen"
        return torch.from_numpy(self.codes[at].astype(np.int64)).to(student.centroids.device)

    def find(self, rows: Int64) -> tuple[Int64, Bool]:
        """Where in ``codes`` those of the documents ``rows (k,)`` are, and which of these have one: bool ``(k,)``."""
        if self.rows is None:
            return rows, np.ones(len(rows), dtype=bool)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return at, self.rows[at] == rows

    def with_codes(self, rows: Int64, codes: Codes) -> CodedPlacement:
        """The same with fresh codes of some of the documents."""
        if len(rows) == len(self.lists):
            return super().with_codes(rows, codes)
        if self.rows is None:
            every, merged, at = None, copied(self.codes), rows
        else:
            every = np.union1d(self.rows, rows)
            merged, at = column((len(every), codes.shape[1]), codes.dtype), np.searchsorted(every, rows)
            merged[np.searchsorted(every, self.rows)] = self.codes
        merged[at] = codes
        fresh = np.zeros(len(merged), dtype=bool)
        fresh[at] = True
        return CodedPlacement(self.lists, merged, fresh, every)


def restored_placement(arrays: Mapping[str, Tensor]) -> Placement:
    """A placement from its arrays."""
    kind = CodedPlacement if "codes" in arrays else Placement
    return kind(**{name: array.numpy() for name, array in arrays.items()})
