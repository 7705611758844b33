"""Differentiable counterparts of faiss indexes, one index family a file."""

from faiss_distill.students.ivfpq import IVFPQStudent, decode, nearest_codes, similarity

__all__ = ["IVFPQStudent", "decode", "nearest_codes", "similarity"]
