"""Centroids and codebooks by gradient descent on the ranking loss (Distill-VQ Eq. 6)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from faiss_distill.config import Assignment, DistillConfig, Learn
from faiss_distill.errors import InputError
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.objective import Objective, Selection, spread
from faiss_distill.learning.placement import Placement
from faiss_distill.learning.students import Student, student_of
from faiss_distill.progress import progress_bar
from faiss_distill.state import IndexState


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
    _, scanned = selection(student, documents.start)
    limit, budget = scanned * (1 + config.max_scan_increase), math.inf
    if config.lists is Assignment.QUERY_AWARE:
        budget = documents.scanned(student, documents.start.lists)
    placement = documents.renew(student, documents.start, budget)
    best = copy.deepcopy(student.state_dict()), placement
    (best_score, scanned), best_epoch = selection(student, placement), 0
    history: list[dict[str, float | None]] = [
        {"epoch": 0, "loss": None, "overlap_at_10": best_score, "codes_scanned": scanned}
    ]
    with progress_bar(steps, "distil", "steps", config.progress) as bar:
        for epoch in range(1, config.epochs + 1):
            hard = objective.mine(student, placement)
            total = 0.0
            order = torch.randperm(n_queries, generator=generator)
            for i in range(0, n_queries - batch + 1, batch):
                value = objective(student, placement, order[i : i + batch], hard, generator)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
                total += value.item()
                bar.update()
            loss = total / (n_queries // batch)
            if not math.isfinite(loss):
                raise InputError(
                    "learning_rate",
                    "a rate, temperature and weights at which the loss stays finite",
                    f"{loss} in epoch {epoch}",
                    "lower learning_rate, centroid_rate or codebook_rate",
                )
            placement = documents.renew(student, placement, budget)
            score, scanned = selection(student, placement)
            history.append({"epoch": epoch, "loss": loss, "overlap_at_10": score, "codes_scanned": scanned})
            bar.set_postfix({"selection overlap@10": f"{score:.4f}"})
            if (score > best_score and scanned <= limit) or (epoch == 1 and not start_counts):
                best = copy.deepcopy(student.state_dict()), placement
                best_score, best_epoch = score, epoch
            elif epoch - best_epoch >= config.patience:
                break
    optimizer.zero_grad()
    parameters, placement = best
    student.load_state_dict(parameters)
    return Optimised(student, placement, tuple(history), best_epoch)


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
