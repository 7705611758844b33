"""What reads vectors and labels, under the name that it had before: see :mod:`faiss_distill.data`."""

from faiss_distill.data.formats import FORMATS
from faiss_distill.data.qrels import read_qrels
from faiss_distill.data.vectors import Vectors, open_vectors

__all__ = ["FORMATS", "Vectors", "open_vectors", "read_qrels"]
