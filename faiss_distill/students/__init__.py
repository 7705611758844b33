"""Indexes as torch modules. One kind of codes a file."""

from __future__ import annotations

from torch import nn

from faiss_distill.state import IndexState
from faiss_distill.students.ivfpq import IVFPQStudent, decode, nearest_codes
from faiss_distill.students.lists import ListStudent
from faiss_distill.students.student import Student, similarity

__all__ = ["IVFPQStudent", "ListStudent", "Student", "decode", "nearest_codes", "similarity", "student_of"]


def student_of(state: IndexState, query_encoder: nn.Module | None = None) -> Student:
    """The student of an index: with codebooks, or of lists alone."""
    return (ListStudent if state.codebooks is None else IVFPQStudent)(state, query_encoder)
