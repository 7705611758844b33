"""Real embeddings to try things on."""

from faiss_distill.data.samples import RetrievalData, load_debian_packages

__all__ = ["RetrievalData", "load_debian_packages"]
