"""What a tuning imports late, imported before it begins, while a signal may end the process at once."""

import scipy.spatial  # noqa: F401

from faiss_distill.learning.codes.compiled import fused

fused()
