"""Which code a vector gets: the nearest one, or that which serves the queries that matter."""

from __future__ import annotations

from torch import Tensor

from faiss_distill.config import DistillConfig
from faiss_distill.learning.codes.additive import AdditiveEncoder
from faiss_distill.learning.codes.product import QueryAwareEncoder
from faiss_distill.state import Metric


def encoder_of(
    queries: Tensor, codebooks: Tensor, metric: Metric, config: DistillConfig, offset: float, uneven: float = 0.0
) -> QueryAwareEncoder:
    """What finds query-aware codes of codebooks ``(nsplits, steps, ksub, dsub)``, by one step or by several."""
    kind = QueryAwareEncoder if codebooks.shape[1] == 1 else AdditiveEncoder
    return kind(queries, codebooks, metric, config, offset, uneven)
