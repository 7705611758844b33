"""Which inverted lists a query looks into."""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_distill.state import Metric
from faiss_distill.students import similarity


def probed_lists(queries: Tensor, centroids: Tensor, nprobe: int, metric: Metric) -> Tensor:
    """The lists that an exact coarse quantizer probes: bool ``(nq, nlist)``, ``nprobe`` true in each row.

    Args:
        queries: ``(nq, d)``.
        centroids: ``(nlist, d)``.
        nprobe: lists a query, capped at ``nlist``.
        metric: the index's metric.
    """
    scores = similarity(queries, centroids, metric)
    best = scores.topk(min(nprobe, len(centroids)), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
