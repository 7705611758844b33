"""File formats of vectors, one a file: each maps what is in the file as a matrix."""

from __future__ import annotations

from faiss_distill.data.formats import fbin, fvecs, npy

FORMATS = {".npy": npy.open_npy, ".fvecs": fvecs.open_fvecs, ".fbin": fbin.open_fbin}
"""What opens a file of each suffix: a function of its path and of what to call it in errors."""
