"""Which row of the embeddings belongs to which id of an index."""

from __future__ import annotations

import numpy as np

from faiss_distill.data.ids import NOTHING, examples
from faiss_distill.errors import InputError
from faiss_distill.state import Int64


def positions(labels: Int64, ids: Int64) -> Int64:
    """Where each of ``ids`` is in ``labels``, distinct in any order; -1 where it is not: int64, shaped as ``ids``."""
    order = np.argsort(labels)
    at = np.minimum(np.searchsorted(labels, ids, sorter=order), len(labels) - 1)
    return np.where(labels[order[at]] == ids, order[at], -1)


def rows_of(labels: Int64, n_embeddings: int, ids: Int64 | None) -> Int64:
    """Row of the embeddings for each of ``labels``.

    Args:
        labels: ids of stored vectors, distinct, int64 ``(n,)``.
        n_embeddings: rows that were passed.
        ids: the id of each of them, or None if row ``i`` belongs to id ``i``.

    Raises:
        InputError: embeddings and ids are not one to one.
    """
    n = len(labels)
    if ids is None:
        if labels.min() < 0 or labels.max() >= n_embeddings:
            raise InputError(
                f"embeddings: expected row i to belong to id i for ids {labels.min()}..{labels.max()}, got "
                f"{n_embeddings} rows; pass ids= with the id of each row"
            )
        if n_embeddings > n and labels.max() == n - 1:  # distinct, so exactly 0..n-1: nothing was ever removed
            raise InputError(
                f"embeddings: expected {n} rows, one for each of the ids 0..{n - 1}, got {n_embeddings}; if the last "
                f"ones were removed from the index, pass embeddings[:{n}]"
            )
        return labels
    if ids.shape != (n_embeddings,):
        raise InputError(f"ids: expected {n_embeddings} integers, one a row, got shape {ids.shape}")
    if (ids == NOTHING).any():
        raise InputError(
            "ids: expected others than -1, which faiss returns where it found nothing, got it; such a vector needs "
            "another id"
        )
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(doubles):
        raise InputError(f"ids: expected distinct ids, got {len(doubles)} repeated ({examples(doubles)})")
    missing = np.setdiff1d(labels, ordered)
    if len(missing):
        raise InputError(
            f"ids: expected the ids of all {n} stored vectors, {len(missing)} are missing ({examples(missing)}); "
            f"a sample will do with encoding='frozen'"
        )
    if n_embeddings > n:
        extra = np.setdiff1d(ordered, labels)
        raise InputError(f"ids: expected only ids that the index holds, got {len(extra)} others ({examples(extra)})")
    return order[np.searchsorted(ordered, labels)]
