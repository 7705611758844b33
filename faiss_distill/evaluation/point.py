"""One setting of a search: what is found, by several measures, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class OperatingPoint:
    """One setting of a search: what is found and what it costs, averaged over queries.

    Attributes:
        nprobe: lists probed.
        overlap_at_10: share of the exact top 10 in the first 10 returned.
        nearest_in_10: share of queries whose exact nearest is in the first 10 returned.
        recall_at_k: share of the exact top 10 in the first K returned, with K as in :class:`~faiss_distill.Evaluation`.
        codes_scanned: codes compared, a query; of an index without lists all, or the vectors met in its graph.
        latency_ms: wall-clock milliseconds a query, searched as one batch. Noisy on shared machines, so no
            two that were measured at other times can be compared.
        mrr_at_10: reciprocal rank of the first relevant document in the first 10, over the queries that have one; None
            if none has.
        label_recall_at_10: share of the relevant documents in the first 10, or None.
        label_recall_at_k: share of the relevant documents in the first K, or None.
        distances: ``codes_scanned``, and the distances computed in the graph of an HNSW coarse quantizer, and the
            vectors that a refinement re-ranks in a search for 10.
        parameters: those of the search in faiss's notation, such as ``"nprobe=4,quantizer_efSearch=32"``; empty if all
            but nprobe were the index's own.
    """

    nprobe: int
    overlap_at_10: float
    nearest_in_10: float
    recall_at_k: float
    codes_scanned: float
    latency_ms: float
    mrr_at_10: float | None = None
    label_recall_at_10: float | None = None
    label_recall_at_k: float | None = None
    distances: float = 0.0
    parameters: str = ""


COSTS = {"distances": "distances computed per query", "latency_ms": "milliseconds per query"}
"""The costs, in words."""
QUALITIES = tuple(
    f.name for f in fields(OperatingPoint) if f.name.startswith(("overlap", "nearest", "recall", "mrr", "label"))
)
"""What may count as found."""
