"""Indexes as torch modules: with codebooks, or of lists alone."""

from __future__ import annotations

from torch import nn

from faiss_distill.learning.students.codebooks import CodebookStudent
from faiss_distill.learning.students.lists import ListStudent
from faiss_distill.learning.students.student import Student, similarity
from faiss_distill.state import IndexState

__all__ = ["CodebookStudent", "ListStudent", "Student", "similarity", "student_of"]


def student_of(state: IndexState, query_encoder: nn.Module | None = None) -> Student:
    """The student of an index."""
    return (ListStudent if state.codebooks is None else CodebookStudent)(state, query_encoder)
