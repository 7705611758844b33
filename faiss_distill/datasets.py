"""Real embeddings to try things on, under the name that they had before: see :mod:`faiss_distill.data.samples`."""

from faiss_distill.data.samples import RetrievalData, load_debian_packages

__all__ = ["RetrievalData", "load_debian_packages"]
