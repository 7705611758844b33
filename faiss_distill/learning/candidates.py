"""Which documents a query is scored on, and which queries a document is coded for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from faiss_distill.mixture import Mixture, Source
from faiss_distill.state import Float32, Int64


class Candidates:
    """Draws the documents that a batch of queries is scored on, Distill-VQ's :math:`D_q`.

    Args:
        mixture: the sources.
        top: the teacher's Top-K of each query, int64 ``(nq, K)``, K at least the depth of the ``top`` sources.
        relevant: rows of the documents labelled relevant, -1 as padding, int64 ``(nq, r)``, or None.
        n: documents in the corpus.
    """

    def __init__(self, mixture: Mixture, top: Int64, relevant: Int64 | None, n: int) -> None:
        """Make tensors of the lists."""
        self._mixture, self._n = mixture, n
        self._top = torch.from_numpy(top)
        self._relevant = None if relevant is None else torch.from_numpy(relevant)

    def draw(self, batch: Tensor, hard: Tensor | None, generator: torch.Generator) -> Tensor:
        """Draw for some of the queries.

        Args:
            batch: which, int64 ``(nq,)``.
            hard: what the current index finds for each of all queries, best first, -1 as padding, int64; needed by a
                mixture with a ``hard`` source.
            generator: of random numbers.

        Returns:
            Each query's own documents, -1 as padding, int64 ``(nq, s)``.
        """
        return torch.cat([self._draw(source, batch, hard, generator) for source in self._mixture.sources], dim=1)

    def shared(self, own: Tensor) -> tuple[Tensor, Tensor | None]:
        """The distinct documents of a batch, and who is scored on them.

        Args:
            own: as drawn, int64 ``(nq, s)``.

        Returns:
            The documents, ascending, int64 ``(k,)``, and which of them each query is scored on, bool ``(nq, k)``, or
            None for all.
        """
        candidates = torch.unique(own[own >= 0])
        return candidates, None if self._mixture.in_batch else members(candidates, own)

    def _draw(self, source: Source, batch: Tensor, hard: Tensor | None, generator: torch.Generator) -> Tensor:
        """Documents of each query from one source, -1 as padding: int64 ``(nq, s)``."""
        if source.kind == "random":
            return torch.randint(self._n, (len(batch), source.depth), generator=generator)
        lists = {"gt": self._relevant, "top": self._top, "hard": hard}[source.kind]
        if lists is None:
            raise ValueError(f"the mixture draws on {source.kind!r}, which is not there")
        pool = lists[batch] if source.kind == "gt" else lists[batch, : source.depth]
        if source.sampled is None or source.sampled >= pool.shape[1]:
            return pool
        order = torch.rand(pool.shape, generator=generator).masked_fill_(pool < 0, -1)
        return pool.gather(1, order.topk(source.sampled, dim=1).indices)


def members(candidates: Tensor, lists: Tensor) -> Tensor:
    """Which of ``candidates``, ascending int64 ``(k,)``, are in each of ``lists (nq, s)``: bool ``(nq, k)``."""
    if len(candidates) == 0:
        return torch.zeros(len(lists), 0, dtype=torch.bool)
    at = torch.searchsorted(candidates, lists).clamp(max=len(candidates) - 1)
    queries, columns = torch.nonzero(candidates[at] == lists, as_tuple=True)
    out = torch.zeros(len(lists), len(candidates), dtype=torch.bool)
    out[queries, at[queries, columns]] = True
    return out


class LocalQueries:
    """Each document's best queries, read off the teacher's lists at no further cost.

    A query is local to a document if the document is in its exact Top-K; the best are those that score it highest.
    Memory is proportional to ``nq * K``, whatever the size of the corpus.

    Args:
        top: the teacher's Top-K, int64 ``(nq, K)``.
        scores: their scores, float32 ``(nq, K)``.
        limit: queries kept for each document.

    Attributes:
        width: the most that a document has, no more than ``limit``.
    """

    def __init__(self, top: Int64, scores: Float32, limit: int) -> None:
        """Invert the lists."""
        documents, queries = top.ravel(), np.repeat(np.arange(len(top)), top.shape[1])
        order = np.lexsort((-scores.ravel(), documents))
        documents, queries = documents[order], queries[order]
        rank = np.arange(len(documents)) - np.searchsorted(documents, documents)
        self.width = min(limit, int(rank.max(initial=-1)) + 1)
        kept = rank < limit
        self._documents, self._queries = documents[kept], queries[kept]

    def of(self, rows: Int64) -> Int64:
        """Queries of the documents ``rows (k,)``: int64 ``(k, width)``, best first, -1 for none."""
        if len(self._queries) == 0:
            return np.full((len(rows), self.width), -1, dtype=np.int64)
        first, last = (np.searchsorted(self._documents, rows, side)[:, None] for side in ("left", "right"))
        at = first + np.arange(self.width)
        return np.where(at < last, self._queries[np.minimum(at, len(self._queries) - 1)], -1)
