"""Centroids and codebooks by gradient descent on the ranking loss (Distill-VQ Eq. 6)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from faiss_distill.config import Assignment, DistillConfig, Learn
from faiss_distill.errors import InputError
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.objective import Objective, Selection, Step, spread
from faiss_distill.learning.placement import Placement
from faiss_distill.learning.students import Student, student_of
from faiss_distill.progress import progress_bar
from faiss_distill.state import IndexState, Int64


@dataclass(frozen=True)
class Optimised:
    """What training found.

    Attributes:
        student: the best one.
        placement: the lists and codes that belong to it.
        history: of each epoch, from the start on: its loss and selection score.
        best_epoch: the one it is from.
    """

    student: Student
    placement: Placement
    history: tuple[dict[str, float | None], ...]
    best_epoch: int


def optimise(
    state: IndexState,
    query_encoder: nn.Module | None,
    documents: Documents,
    objective: Objective,
    selection: Selection,
    n_queries: int,
    config: DistillConfig,
    start_counts: bool = True,
) -> Optimised:
    """Train centroids, codebooks and the query encoder; keep what does best on the selection queries.

    Args:
        state: where to start.
        query_encoder: trained in place, or None.
        documents: the corpus.
        objective: the loss of a batch.
        selection: scores a student; what scans too many codes can't be best.
        n_queries: training queries of the objective.
        config: epochs, batch size, learning rates, patience, seed.
        start_counts: whether the best student may be the one at the start.

    Raises:
        InputError: the loss is no longer finite.
    """
    student = student_of(state, query_encoder).to(documents.device)
    generator = torch.Generator().manual_seed(config.seed)
    batch = config.batch_size or min(256, n_queries)
    steps = config.epochs * (n_queries // batch)
    optimizer = _optimizer(student, selection.spread, config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps))
    placement = documents.start
    _, scanned = selection(student, placement)
    limit, budget, sampled = scanned * (1 + config.max_scan_increase), math.inf, math.inf
    if config.lists is Assignment.QUERY_AWARE:
        budget = documents.scanned(student, placement.lists)
        sampled = documents.scanned(student, placement.lists[documents.sample])
    loss, best_epoch, best_score = None, -1, -math.inf
    history: list[dict[str, float | None]] = []
    with progress_bar(steps, "distil", "steps", config.progress) as bar:
        for epoch in range(config.epochs + 1):
            lesson = None
            if not objective.mines:
                lesson = _lesson(objective, n_queries, batch, None, generator) if epoch < config.epochs else []
            terms = documents.terms(student, placement, sampled)
            placement = documents.renew(student, placement, terms, _looked_at(documents, selection, lesson))
            score, scanned = selection(student, placement)
            history.append({"epoch": epoch, "loss": loss, "overlap_at_10": score, "codes_scanned": scanned})
            bar.set_postfix({"selection overlap@10": f"{score:.4f}"})
            usable = scanned <= limit or epoch == 0
            if (score > best_score and usable) or (epoch == 1 and not start_counts):
                best, best_score, best_epoch = (copy.deepcopy(student.state_dict()), placement, terms), score, epoch
            elif epoch - best_epoch >= config.patience:
                break
            if epoch == config.epochs:
                break
            if lesson is None:
                hard = objective.mine(student, placement)
                lesson = _lesson(objective, n_queries, batch, hard, generator)
            total = 0.0
            for step in lesson:
                value = objective(student, placement, step)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                total += value.item()
                bar.update()
            loss = total / len(lesson)
            if not math.isfinite(loss):
                raise InputError(
                    "learning_rate",
                    "a rate, temperature and weights at which the loss stays finite",
                    f"{loss} in epoch {epoch + 1}",
                    "lower learning_rate, centroid_rate or codebook_rate",
                )
    optimizer.zero_grad()
    parameters, placement, terms = best
    student.load_state_dict(parameters)
    placement = documents.complete(student, placement, terms, budget)
    return Optimised(student, placement, tuple(history), best_epoch)


def _lesson(
    objective: Objective, n_queries: int, batch: int, hard: Tensor | None, generator: torch.Generator
) -> list[Step]:
    """The steps of an epoch, each with ``batch`` of the queries, in random order."""
    order = torch.randperm(n_queries, generator=generator)
    return [objective.step(order[i : i + batch], hard, generator) for i in range(0, n_queries - batch + 1, batch)]


def _looked_at(documents: Documents, selection: Selection, lesson: list[Step] | None) -> Int64 | None:
    """The documents that a placement is asked for until it is renewed, ascending; None for all."""
    if lesson is None:
        return None
    drawn = [step.own.flatten().numpy() for step in lesson]
    rows = np.unique(np.concatenate([documents.sample, selection.rows, *drawn]))
    return rows[rows >= 0]


def _optimizer(student: Student, documents: float, config: DistillConfig) -> torch.optim.Adam:
    """Adam on what is learned of a student, where ``documents`` are spread so much."""
    groups = []
    for parameter, rate, learned in (
        (student.centroids, config.centroid_rate, config.learn is not Learn.CODEBOOKS),
        (student.codebooks, config.codebook_rate, config.learn is not Learn.CENTROIDS),
    ):
        if parameter is None:
            continue
        # Steps relative to the spread of the parameters, or of the documents if that is less (faiss's centroids for
        # inner product have unit norm whatever the documents' norm), so that neither scale nor offset needs tuning.
        relative = config.learning_rate * max(min(spread(parameter.detach()), documents), 1e-12)
        parameter.requires_grad_(learned)
        if learned:
            groups.append({"params": [parameter], "lr": rate or relative})
    if student.query_encoder is not None:
        groups.append({"params": list(student.query_encoder.parameters()), "lr": config.query_encoder_rate})
    return torch.optim.Adam(groups)


def warm_cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factor of a step: linear warm-up over 5 % of ``steps``, then cosine decay to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))))
