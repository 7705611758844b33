"""What is known to go wrong with an index, as far as it can be seen without its embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from faiss_distill.index.adapter import IndexAdapter
from faiss_distill.state import IndexState, Metric

FEW = 1_000
"""Vectors, below which an index that compares them all is small and fast enough."""
PER_LIST = 39
"""Vectors a list, below which faiss warns of too few to train on."""
SAMPLE = 1_000
"""Vectors whose lengths are looked at."""
UNEVEN = 0.25
"""Standard deviation of lengths, as a share of their mean, that short codes of normalised vectors do not have."""


def concerns(adapter: IndexAdapter, state: IndexState) -> Iterator[str]:
    """A sentence for each thing that is known to go wrong.

    Args:
        adapter: the index.
        state: of all its vectors.
    """
    if state.n < FEW:
        size = 4 * adapter.index.d * state.n / 1e6
        yield (
            f"{state.n} vectors are few: an IndexFlat of them takes {size:.1f} MB, finds everything, and is hardly "
            "slower; and there is little for tuning to learn from"
        )
    elif state.n < PER_LIST * adapter.nlist and adapter.nlist > 1:
        yield (
            f"{state.n} vectors in {adapter.nlist} lists are fewer than the {PER_LIST} a list that faiss wants to "
            f"train on: build it with {state.n // PER_LIST} lists at most"
        )
    if adapter.metric is not Metric.INNER_PRODUCT:
        return
    if any(step is not None and step[1].any() for step in adapter.transforms.steps):
        yield (
            "its transforms take a mean off documents and queries alike, as a PCA does, which changes inner products: "
            "it may rank by another score than that of the vectors; build it with METRIC_L2, or with a transform that "
            "takes off no mean, such as OPQ or RR"
        )
    if adapter.decodes and not adapter.normalizes:
        rows = np.linspace(0, state.n - 1, min(state.n, SAMPLE)).astype(np.int64)
        with np.errstate(all="ignore"):  # of damaged codebooks
            lengths = np.linalg.norm(adapter.decode(state, rows).astype(np.float64), axis=1)
        if lengths.std() > UNEVEN * lengths.mean():
            low, high = np.quantile(lengths, [0.05, 0.95])
            yield (
                f"its vectors are not normalised: their lengths are from {low:.3g} to {high:.3g}, and by inner product "
                "long ones are found first; if cosine similarity is meant, normalise vectors and queries, and rebuild"
            )
