"""The options of a tuning run."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from numbers import Real

from faiss_distill.errors import InputError


class Encoding(str, enum.Enum):
    """How codes are chosen once the codebooks are learned."""

    QUERY_AWARE = "query_aware"
    NEAREST = "nearest"


@dataclass(frozen=True)
class DistillConfig:
    """Options of :func:`faiss_distill.distill`.

    Temperature, learning rate and the codes' weights are relative to the scale of the embeddings.

    Attributes:
        epochs: passes over the training queries. 0 keeps centroids and codebooks and only re-encodes.
        batch_size: queries per step; their sampled candidates are shared within the batch.
        top_k: exact neighbours that the teacher finds for each query; also the depth of ``recall@top_k``.
        sampled: of each query's ``top_k``, how many are drawn as candidates at each step.
        perplexity: the softmax temperature is set so that the teacher's distribution over a query's ``top_k``
            has this perplexity on average. Must be below ``top_k``.
        learning_rate: Adam's step, relative to the spread of the parameters it moves and of the documents.
        patience: epochs without improvement on the selection queries after which training stops.
        encoding: ``"query_aware"`` minimises the score error over the queries that matter for a document,
            ``"nearest"`` is faiss's own choice: the nearest codeword in each segment.
        sweeps: passes of coordinate descent over a document's sub-codes.
        local_queries: how many of the training queries nearest to a document shape its code.
        local_weight: weight of each of these in the error that its code minimises.
        self_weight: weight of the document itself, taken as a query.
        global_weight: weight of the covariance of all training queries.
        validation_fraction: share of ``queries`` held out when no ``validation_queries`` are given.
        max_queries: a longer query log is sampled down to this many.
        confidence: level of the paired bootstrap interval whose lower end must be above 0 for the result to be kept.
        max_scan_increase: the tuned index may scan at most this share more codes a query than before.
        block_rows: corpus rows held in memory at a time.
        nprobe: judge the result at this many lists probed, instead of the index's own ``nprobe``.
        seed: seeds the split, the sampling and the bootstrap.
        device: torch device of the training and the encoding, such as ``"cpu"`` or ``"cuda"``.
        progress: show progress bars, when the standard error is a terminal.

    Raises:
        InputError: a field is out of its range.
    """

    epochs: int = 3
    batch_size: int = 256
    top_k: int = 100
    sampled: int = 10
    perplexity: float = 60.0
    learning_rate: float = 0.02
    patience: int = 2
    encoding: Encoding = Encoding.QUERY_AWARE
    sweeps: int = 3
    local_queries: int = 8
    local_weight: float = 2.0
    self_weight: float = 1.0
    global_weight: float = 0.5
    validation_fraction: float = 0.1
    max_queries: int = 65_536
    confidence: float = 0.95
    max_scan_increase: float = 0.01
    block_rows: int = 16_384
    nprobe: int | None = None
    seed: int = 0
    device: str = "cpu"
    progress: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        try:
            object.__setattr__(self, "encoding", Encoding(self.encoding))
        except ValueError:
            names = ", ".join(repr(e.value) for e in Encoding)
            raise InputError(f"encoding: expected one of {names}, got {self.encoding!r}") from None
        at_least = {"epochs": 0, "batch_size": 1, "top_k": 10, "sampled": 1, "patience": 1, "sweeps": 1}
        at_least |= {"local_queries": 0, "max_queries": 100, "block_rows": 256, "seed": 0}
        if self.nprobe is not None:
            at_least["nprobe"] = 1
        for name, low in at_least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"{name}: expected an integer of at least {low}, got {value!r}")
        not_negative = ("local_weight", "self_weight", "global_weight", "max_scan_increase")
        for name in not_negative:
            if not (_is_number(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        for name in ("validation_fraction", "confidence", "learning_rate"):
            if not (_is_number(getattr(self, name)) and 0 < getattr(self, name) < 1):
                raise InputError(f"{name}: expected a number between 0 and 1, got {getattr(self, name)!r}")
        if not (_is_number(self.perplexity) and 1 < self.perplexity < self.top_k):
            raise InputError(
                f"perplexity: expected between 1 and top_k={self.top_k}, got {self.perplexity!r}; set it with top_k"
            )
        if self.sampled > self.top_k:
            raise InputError(f"sampled: expected at most top_k={self.top_k}, got {self.sampled}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
