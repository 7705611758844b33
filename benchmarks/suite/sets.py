"""The data sets that tables are made on, each with the index that it gets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from faiss_distill.datasets import RetrievalData, load_debian_packages

SETTINGS = {
    "full": (512, 16, 16),
    "sample": (128, 4, 16),
    "quick": (32, 2, 8),
    "words": (512, 16, 16),
    "wordnet-mpnet": (128, 8, 64),
}
"""Lists, lists probed and bytes of a code, unless a table varies them."""
SPLITS = {"words": (4_500, 750, 750), "wordnet-mpnet": (4_500, 750, 750)}
"""Of sets without labels, known by their folder's name: training, validation and test queries, in this order."""


def load(directory: Path | None) -> tuple[str, RetrievalData]:
    """Name and data of the set in a folder; without one, of the packaged sample.

    Where nothing is labelled, ``relevant`` is -1 throughout.

    Raises:
        InputError: it is neither a set of :data:`SPLITS` nor the full Debian set.
    """
    name = directory.resolve().name if directory else "sample"
    if directory is None or name not in SPLITS:
        return "full" if directory else name, load_debian_packages(directory)
    documents, queries = (np.load(directory / f"{part}.npy").astype(np.float32) for part in ("documents", "queries"))
    ends = np.cumsum([0, *SPLITS[name]]).tolist()
    unknown = np.full(len(queries), -1, dtype=np.int64)
    return name, RetrievalData(documents, queries, unknown, *(slice(*pair) for pair in pairwise(ends)))
