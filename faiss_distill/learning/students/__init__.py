"""Indexes as torch modules. One kind of codes a file."""

from __future__ import annotations

from torch import nn

from faiss_distill.learning.students.additive import AdditiveStudent, beam_codes, decode_additive
from faiss_distill.learning.students.ivfpq import IVFPQStudent, decode, nearest_codes
from faiss_distill.learning.students.lists import ListStudent
from faiss_distill.learning.students.student import Student, similarity
from faiss_distill.state import IndexState

__all__ = [
    "AdditiveStudent",
    "IVFPQStudent",
    "ListStudent",
    "Student",
    "beam_codes",
    "decode",
    "decode_additive",
    "nearest_codes",
    "similarity",
    "student_of",
]


def student_of(state: IndexState, query_encoder: nn.Module | None = None) -> Student:
    """The student of an index: with product or additive codebooks, or of lists alone."""
    if state.codebooks is None:
        return ListStudent(state, query_encoder)
    return (IVFPQStudent if state.codebooks.ndim == 3 else AdditiveStudent)(state, query_encoder)
