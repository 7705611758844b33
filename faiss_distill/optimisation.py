"""Centroids and codebooks by gradient descent on the ranking loss (Distill-VQ Eq. 6)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from faiss_distill.adapters import IVFPQAdapter
from faiss_distill.candidates import in_batch_candidates
from faiss_distill.config import DistillConfig
from faiss_distill.inputs import Queries
from faiss_distill.losses import listnet
from faiss_distill.readers import Vectors
from faiss_distill.routing import probed_lists
from faiss_distill.state import Float32, Int64, IVFPQState
from faiss_distill.students import IVFPQStudent
from faiss_distill.teacher import Teacher


@dataclass(frozen=True)
class Taught:
    """Queries with their exact Top-K.

    Attributes:
        queries: ``nq`` of them.
        top: corpus rows, best first, int64 ``(nq, K)``.
        scores: their exact scores, float32 ``(nq, K)``.
    """

    queries: Queries
    top: Int64
    scores: Float32

    def take(self, which: slice) -> Taught:
        """Some of them."""
        return Taught(self.queries.take(which), self.top[which], self.scores[which])


@dataclass(frozen=True)
class Documents:
    """The corpus as the student sees it."""

    corpus: Vectors
    adapter: IVFPQAdapter
    assignment: Int64
    device: torch.device

    def take(self, rows: Int64) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``(k, d_in)``, the same behind the transforms ``(k, d)``, and lists ``(k,)``, on the device."""
        exact = self.corpus.take(rows)
        vectors = torch.from_numpy(self.adapter.transform(exact))
        lists = torch.from_numpy(self.assignment[rows])
        return torch.from_numpy(exact).to(self.device), vectors.to(self.device), lists.to(self.device)


class Selection:
    """Overlap@10 of a student on the selection queries, as a search of the union of their Top-K would have it.

    Lists are probed exactly, and documents have their nearest codes. No faiss index is built.

    Args:
        documents: the corpus.
        taught: the selection queries.
        nprobe: lists probed.

    Attributes:
        spread: root mean square of these documents about their mean.
    """

    def __init__(self, documents: Documents, taught: Taught, nprobe: int) -> None:
        """Gather the documents."""
        device, own = documents.device, taught.queries.rows
        pool = np.unique(taught.top)
        _, self._vectors, self._assignment = documents.take(pool)
        self._queries = torch.from_numpy(documents.adapter.transform(taught.queries.vectors)).to(device)
        self._truth = torch.from_numpy(np.searchsorted(pool, taught.top[:, :10])).to(device)
        self._own = None if own is None else torch.from_numpy(pool == own[:, None]).to(device)
        self._nprobe = nprobe
        self.spread = spread(self._vectors)

    @torch.no_grad()
    def __call__(self, student: IVFPQStudent) -> float:
        """Mean overlap@10, between 0 and 1."""
        _, scores = student(self._queries, self._assignment, student.encode(self._vectors, self._assignment))
        probed = probed_lists(self._queries, student.centroids, self._nprobe, student.metric)[:, self._assignment]
        hidden = ~probed if self._own is None else ~probed | self._own
        best = scores.masked_fill(hidden, -torch.inf).topk(10, dim=1)
        found = best.indices.masked_fill(best.values.isneginf(), -1)
        return float((found[:, :, None] == self._truth[:, None, :]).any(dim=2).float().mean())


class Objective:
    """The loss of a batch: ListNet of the teacher with the full and with the coarse score (Eq. 5, 6, 12).

    Args:
        documents: the corpus.
        taught: the training queries.
        teacher: their reference.
        temperature: divides all scores.
        sampled: candidates drawn of each query's Top-K.
    """

    def __init__(
        self, documents: Documents, taught: Taught, teacher: Teacher, temperature: float, sampled: int
    ) -> None:
        """Make tensors of the queries."""
        vectors, own = taught.queries.vectors, taught.queries.rows
        self._documents, self._teacher = documents, teacher
        self._temperature, self._sampled = temperature, sampled
        self._top = torch.from_numpy(taught.top)
        self._exact = torch.from_numpy(vectors)
        self._queries = torch.from_numpy(documents.adapter.transform(vectors))
        self._own = None if own is None else torch.from_numpy(own)

    def __call__(self, student: IVFPQStudent, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Scalar loss of the queries ``batch``, int64 ``(nq,)``, on candidates that they share."""
        device = self._documents.device
        candidates = in_batch_candidates(self._top[batch], self._sampled, generator)
        exact, vectors, assignment = self._documents.take(candidates.numpy())
        targets = self._teacher.scores(self._exact[batch].to(device), exact) / self._temperature
        codes = student.encode(vectors, assignment)  # codes follow the codebooks; gradients flow through the chosen
        coarse, full = student(self._queries[batch].to(device), assignment, codes)
        mask = None if self._own is None else (candidates != self._own[batch, None]).to(device)
        return listnet(full / self._temperature, targets, mask) + listnet(coarse / self._temperature, targets, mask)


def optimise(
    state: IVFPQState,
    objective: Objective,
    selection: Selection,
    n_queries: int,
    config: DistillConfig,
    device: torch.device,
) -> tuple[IVFPQStudent, list[dict[str, float | None]]]:
    """Train centroids and codebooks; keep what does best on the selection queries.

    Args:
        state: where to start.
        objective: the loss of a batch.
        selection: scores a student; higher is better.
        n_queries: training queries of the objective.
        config: epochs, batch size, learning rate, patience, seed.
        device: where the parameters live.

    Returns:
        The best student, which may be the one at the start, and for each epoch its loss and selection score.
    """
    student = IVFPQStudent(state).to(device)
    generator = torch.Generator().manual_seed(config.seed)
    batch = min(config.batch_size, n_queries)
    steps = config.epochs * (n_queries // batch)
    # Steps relative to the spread of the parameters, or of the documents if that is less (faiss's centroids for inner
    # product have unit norm whatever the documents' norm), so that neither scale nor offset needs tuning.
    groups = [
        {"params": [p], "lr": config.learning_rate * max(min(spread(p.detach()), selection.spread), 1e-12)}
        for p in student.parameters()
    ]
    optimizer = torch.optim.Adam(groups)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps))
    best, best_score, stale = copy.deepcopy(student.state_dict()), selection(student), 0
    history: list[dict[str, float | None]] = [{"epoch": 0, "loss": None, "overlap_at_10": best_score}]
    with tqdm(total=steps, desc="distil", unit="steps", disable=None if config.progress else True) as bar:
        for epoch in range(1, config.epochs + 1):
            total = 0.0
            order = torch.randperm(n_queries, generator=generator)
            for i in range(0, n_queries - batch + 1, batch):
                loss = objective(student, order[i : i + batch], generator)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                total += loss.item()
                bar.update()
            score = selection(student)
            history.append({"epoch": epoch, "loss": total / (n_queries // batch), "overlap_at_10": score})
            bar.set_postfix({"selection overlap@10": f"{score:.4f}"})
            if score > best_score:
                best, best_score, stale = copy.deepcopy(student.state_dict()), score, 0
            else:
                stale += 1
                if stale >= config.patience:
                    break
    student.load_state_dict(best)
    return student, history


def spread(vectors: Tensor) -> float:
    """Root mean square of ``vectors (..., n, d)`` about their mean over ``n``."""
    return float((vectors - vectors.mean(dim=-2, keepdim=True)).square().mean().sqrt())


def warm_cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factor of a step: linear warm-up over 5 % of ``steps``, then cosine decay to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))))
