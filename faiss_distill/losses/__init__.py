"""Similarity functions between teacher and student scores, one a file.

Every loss is pure: ``(student_scores, teacher_scores, mask) -> scalar``, all of shape ``(nq, k)``, scores already
divided by the temperature, ``mask`` true where a candidate counts.
"""

from faiss_distill.losses.listnet import listnet

__all__ = ["listnet"]
