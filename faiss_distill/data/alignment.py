"""Which row of the embeddings belongs to which id of an index."""

from __future__ import annotations

import numpy as np

from faiss_distill.columns import ascending, taken
from faiss_distill.data.ids import NOTHING, examples
from faiss_distill.errors import InputError, MismatchError
from faiss_distill.state import Int64


def positions(labels: Int64, ids: Int64) -> Int64:
    """Where each of ``ids`` is in ``labels``, distinct in any order; -1 where it is not: int64, shaped as ``ids``."""
    if ascending(labels):
        at = np.minimum(np.searchsorted(labels, ids), len(labels) - 1)
        return np.where(labels[at] == ids, at, -1)
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
    if n_embeddings == 0:
        raise MismatchError("embeddings", f"{n} rows, one for each stored vector", "none")
    if ids is None:
        if n_embeddings < n and labels.min() >= 0:
            raise MismatchError(
                "embeddings",
                f"{n} rows, one for each stored vector",
                str(n_embeddings),
                "probably another file, or a truncated one",
            )
        if labels.min() < 0 or labels.max() >= n_embeddings:
            raise MismatchError(
                "embeddings",
                f"row i to belong to id i for ids {labels.min()}..{labels.max()}",
                f"{n_embeddings} rows",
                "pass ids= with the id of each row, or all vectors that were ever added, in their order",
            )
        if n_embeddings > n and labels.max() == n - 1:  # distinct, so exactly 0..n-1: nothing was ever removed
            raise MismatchError(
                "embeddings",
                f"{n} rows, one for each of the ids 0..{n - 1}",
                str(n_embeddings),
                f"if the last ones were removed from the index, pass embeddings[:{n}]",
            )
        return labels
    if ids.shape != (n_embeddings,):
        raise InputError("ids", f"{n_embeddings} integers, one a row", f"shape {ids.shape}")
    if (ids == NOTHING).any():
        raise InputError(
            "ids",
            "none that is -1, which faiss returns where it found nothing",
            f"-1 in row {np.flatnonzero(ids == NOTHING)[0]}",
            "such a vector needs another id",
        )
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    doubles = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(doubles):
        raise InputError("ids", "distinct ids", f"{len(doubles)} repeated ({examples(doubles)})")
    at = np.searchsorted(ordered, labels)
    np.minimum(at, len(ordered) - 1, out=at)
    missing = labels[ordered[at] != labels]
    if len(missing):
        raise MismatchError(
            "ids",
            f"the ids of all {n} stored vectors",
            f"all but {len(missing)} of them ({examples(missing)})",
            "a sample will do with encoding='frozen'",
        )
    if n_embeddings > n:
        extra = np.setdiff1d(ordered, labels)
        raise MismatchError("ids", "only ids that the index holds", f"{len(extra)} others ({examples(extra)})")
    return taken(order, at)
