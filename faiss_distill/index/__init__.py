"""faiss objects in, arrays out, and back."""

import faiss

from faiss_distill.errors import MissingDependencyError

OLDEST = (1, 13)
"""Of faiss. Before it, searches of some indexes crash, and ``IndexShards`` takes no search parameters."""

if tuple(map(int, faiss.__version__.split(".")[:2])) < OLDEST:
    raise MissingDependencyError("faiss", "1.13 or later", faiss.__version__, "upgrade it as you installed it")
