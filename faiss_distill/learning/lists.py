"""Which inverted lists a query looks into, and which one a document is best put in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.learning.codes.product import closeness
from faiss_distill.learning.students import similarity
from faiss_distill.state import Metric
from faiss_distill.world import ALONE, World

SHARPNESS = 0.5
"""Of the temperature of documents' scores, what lists are told apart by: a search probes few of them."""
SCANNED = 0.3
"""What a query led to lists of usual length costs in the loss of a router."""


def probed_lists(queries: Tensor, centroids: Tensor, nprobe: int, metric: Metric) -> Tensor:
    """The lists that an exact coarse quantizer probes: bool ``(nq, nlist)``, ``nprobe`` true in each row.

    Args:
        queries: ``(nq, d)``.
        centroids: ``(nlist, d)``.
        nprobe: lists a query, capped at ``nlist``.
        metric: that of the coarse quantizer.
    """
    scores = similarity(queries, centroids, metric)
    best = scores.topk(min(nprobe, len(centroids)), dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


def probing(
    queries: Tensor, centroids: Tensor, nprobe: int, metric: Metric, world: World = ALONE
) -> tuple[Tensor, float]:
    """How often each list is probed.

    A document in a list that every query probes is scanned by all of them: the sum over documents of the share that
    their list has is the number of codes scanned a query.

    Args:
        queries: ``(nq, d)``.
        centroids: ``(nlist, d)``.
        nprobe: lists a query.
        metric: that of the coarse quantizer.
        world: processes that ask for some of the queries each.

    Returns:
        The share of queries that probe each list, ``(nlist,)``, and the standard deviation of a query's best
        ``2 * nprobe`` coarse scores: of those that decide which lists it probes.
    """
    queries, centroids = queries.detach(), centroids.detach()
    n, queries = len(queries), queries[world.share(len(queries))]
    probes = torch.zeros(len(centroids), device=centroids.device)
    spread = torch.zeros(1, dtype=torch.float64)
    rows = max(1, 2**24 // len(centroids))  # scores within 64 MiB
    for part in torch.split(queries, rows):
        best = similarity(part, centroids, metric).topk(min(2 * nprobe, len(centroids)), dim=1)
        probes += torch.bincount(best.indices[:, :nprobe].flatten(), minlength=len(centroids))
        spread += float(best.values.std(dim=1, correction=0).sum())
    world.add([probes])
    world.add([spread])
    return probes / n, float(spread) / n


def best_lists(vectors: Tensor, centroids: Tensor, metric: Metric, price: Tensor | None = None) -> Tensor:
    """The list whose centroid scores best, less its ``price (nlist,)``: ``vectors (n, d)`` to int64 ``(n,)``."""
    if metric is Metric.L2:
        vectors, own = 2 * vectors, -centroids.square().sum(1)  # a vector's own norm changes no choice
    else:
        own = torch.zeros(len(centroids), dtype=centroids.dtype, device=centroids.device)
    return torch.addmm(own if price is None else own - price, vectors, centroids.T).argmax(dim=1)


def router_loss(scores: Tensor, lists: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy of the lists that a query is led to and those that its neighbours are in, at a price on long lists.

    Routing by learning to rank (Vecchiato et al., 2024, arXiv 2404.11731), where a query has several right lists: the
    target is the share of its neighbours in each.

    Args:
        scores: of each list for each query, ``(nq, nlist)``.
        lists: of the query's neighbours, int64 ``(nq, k)``.
        lengths: of the lists, ``(nlist,)``.

    Returns:
        The mean over queries.
    """
    scores = scores / SHARPNESS
    missed = -torch.log_softmax(scores, dim=1).gather(1, lists).mean()
    return missed + SCANNED * (scores.softmax(dim=1) @ (lengths / lengths.mean())).mean()


def between(vectors: Tensor, queries: Tensor, local: Tensor, metric: Metric) -> Tensor:
    """Half-way from documents to the mean of their local queries, which say where they will be looked for.

    For inner product, documents are first scaled to the length of the queries, which changes no choice of a list.

    Args:
        vectors: documents, ``(n, d)``.
        queries: training queries, ``(nq, d)``.
        local: each document's own queries, int64 ``(n, R)``, -1 for none; without any the document stays.
        metric: that of the coarse quantizer.

    Returns:
        Tensor ``(n, d)``.
    """
    if metric is Metric.INNER_PRODUCT:
        vectors = F.normalize(vectors) * queries.square().sum(1).mean().sqrt()
    if local.shape[1] == 0:
        return vectors
    weights = closeness(local, vectors.dtype)
    total = weights.sum(1, keepdim=True)
    weights = weights / total.clamp(min=torch.finfo(vectors.dtype).tiny)
    mean = F.embedding_bag(local.clamp(min=0), queries, per_sample_weights=weights, mode="sum")
    return torch.where(total > 0, (vectors + mean) / 2, vectors)
