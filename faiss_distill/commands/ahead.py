"""What a tuning imports late, imported before it begins, while a signal may end the process at once."""

import scipy.spatial
import scipy.special
import scipy.stats  # noqa: F401

from faiss_distill.learning.codes.compiled import fused

fused()
