"""Centroids and codebooks by gradient descent on the ranking loss (Distill-VQ Eq. 6)."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from faiss_distill.config import Assignment, DistillConfig, Learn
from faiss_distill.errors import InputError
from faiss_distill.learning.documents import Documents, Terms
from faiss_distill.learning.objective import Objective, Selection, Step, spread
from faiss_distill.learning.placement import Placement, restored_placement
from faiss_distill.learning.students import Student, student_of
from faiss_distill.progress import Bar, progress_bar
from faiss_distill.state import Float64, IndexState, Int64
from faiss_distill.workdir import NOWHERE, Stored, Workdir
from faiss_distill.world import World

logger = logging.getLogger(__name__)

INTERVAL, COST = 10.0, 0.05
"""Seconds of training between two checkpoints, or more where making one would take more than this share of it."""
CHANCE = 0.025
"""Significance level, one-sided, at which an epoch counts as worse than the best before it."""


@dataclass(frozen=True)
class Optimised:
    """What training found.

    Attributes:
        student: of the epoch that is kept.
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
    workdir: Workdir = NOWHERE,
    before: IndexState | None = None,
    on_epoch: Callable[[dict[str, float | None]], object] | None = None,
) -> Optimised:
    """Train centroids, codebooks and the query encoder; keep the last epoch that selection queries don't reject.

    Args:
        state: where to start.
        query_encoder: trained in place, or None.
        documents: the corpus.
        objective: the loss of a batch.
        selection: scores a student; what scans too many codes is not kept.
        n_queries: training queries of the objective.
        config: epochs, batch size, learning rates, patience, seed.
        start_counts: whether the one at the start may be kept.
        workdir: where checkpoints are kept.
        before: the index as it is, which says how many codes may be scanned; ``state`` if None.
        on_epoch: called in the first process with what the history has of each epoch, once that is known; not for those
            that the work folder has.

    Raises:
        InputError: the loss is no longer finite, or a batch has too few queries for all processes.
    """
    student = student_of(state, query_encoder).to(documents.device)
    own = student if before is None else student_of(before, query_encoder).to(documents.device)
    budget = math.inf
    if config.lists is Assignment.QUERY_AWARE:
        budget = documents.scanned(own, documents.start.lists)
    found = workdir.found("learned")
    if found is None:
        run = _Run(student, own, documents, objective, selection, n_queries, config, start_counts, workdir, on_epoch)
        best, history = run.best_of_all(), run.history
        workdir.keep("learned", best.stored(history))
        run.forget()
    else:
        best, history = Best.restored(found), found.facts["history"]
    student.zero_grad()
    student.load_state_dict(best.parameters)
    terms = documents.terms_of(student, best.terms)
    placement = documents.complete(student, best.placement, terms, budget, workdir)
    return Optimised(student, placement, tuple(history), best.epoch)


@dataclass(frozen=True)
class Best:
    """The student of one epoch, and where its documents are.

    Attributes:
        parameters: of the student, with those of the query encoder.
        placement: lists and codes, as far as documents were looked at.
        terms: those that they were placed on.
        epoch: which one.
    """

    parameters: dict[str, Tensor]
    placement: Placement
    terms: Terms
    epoch: int

    def stored(self, history: list[dict[str, float | None]]) -> Stored:
        """As arrays, for a work folder."""
        arrays = named("parameters", self.parameters) | named("placement", self.placement.stored())
        arrays |= named("terms", self.terms.stored())
        return Stored(arrays, {"offset": self.terms.offset, "epoch": self.epoch, "history": history})

    @classmethod
    def restored(cls, stored: Stored) -> Best:
        """The same from there."""
        facts = stored.facts
        return cls(
            within("parameters", stored.arrays),
            restored_placement(within("placement", stored.arrays)),
            Terms.restored(within("terms", stored.arrays), facts["offset"]),
            facts["epoch"],
        )


class _Run:
    """Training, epoch by epoch, from the start or from a checkpoint.

    The arguments are those of :func:`optimise`.
    """

    def __init__(
        self,
        student: Student,
        own: Student,
        documents: Documents,
        objective: Objective,
        selection: Selection,
        n_queries: int,
        config: DistillConfig,
        start_counts: bool,
        workdir: Workdir,
        on_epoch: Callable[[dict[str, float | None]], object] | None,
    ) -> None:
        """Measure the index's own student."""
        self.student, self.documents, self.objective, self.selection = student, documents, objective, selection
        self.config, self.n_queries, self.start_counts, self.workdir = config, n_queries, start_counts, workdir
        self.on_epoch = on_epoch
        self.batch = config.batch_size or min(256, n_queries)
        if self.batch < documents.world.size:
            expected = f"at least one query for each of {documents.world.size} processes"
            raise InputError("batch_size", expected, str(self.batch), "raise it, or start fewer processes")
        self.steps = config.epochs * (n_queries // self.batch)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = _optimizer(student, selection.spread, config)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warm_cosine(self.steps))
        self.placement = documents.start
        _, self.scanned = selection(own, self.placement)
        self.limit, self.sampled = self.scanned * (1 + config.max_scan_increase), math.inf
        if config.lists is Assignment.QUERY_AWARE:
            self.sampled = documents.scanned(own, self.placement.lists[documents.sample])
        self.best: Best | None = None
        self.highest: Float64 | None = None
        self.history: list[dict[str, float | None]] = []
        self.epoch, self.done, self.total = 0, 0, 0.0
        self.loss: float | None = None
        self.drawn_from = self.generator.get_state()
        self.hard: Tensor | None = None
        self.due = math.inf

    def best_of_all(self) -> Best:
        """Train to the last epoch, or until ``patience`` of them in a row were rejected."""
        found = self.workdir.found("training")
        lesson = None if found is None else self._restore(found)
        with progress_bar(self.steps, "train", "steps", self.config.progress) as bar:
            bar.update(self.epoch * (self.n_queries // self.batch) + self.done)
            while True:
                if lesson is None:
                    lesson = self._begin(bar)
                    if not lesson:
                        break
                    self._keep()  # since it took time to place the documents
                for step in lesson[self.done :]:
                    self._learn(step)
                    bar.update()
                    if time.monotonic() > self.due:
                        self._keep()
                self._end(len(lesson))
                lesson = None
        assert self.best is not None
        return self.best

    def forget(self) -> None:
        """Remove the checkpoints."""
        for name in ("training", *(f"placement-{epoch}" for epoch in range(self.config.epochs + 1))):
            self.workdir.forget(name)

    def _begin(self, bar: Bar) -> list[Step]:
        """Place the documents and see how good that is; the steps of the epoch, none after the last."""
        student, config, last = self.student, self.config, self.epoch == self.config.epochs
        self.drawn_from, lesson = self.generator.get_state(), None
        self.documents.world.parameters(student)
        if not self.objective.mines:
            lesson = [] if last else self._lesson(None)
        judges = None
        if config.lists is Assignment.QUERY_AWARE:
            judges = self.selection.queries(student), self.scanned
        terms = self.documents.terms(student, self.placement, self.sampled, judges)
        routed = None if student.router is None else self.objective.routed
        looked_at = _looked_at(self.documents, self.selection, lesson, routed)
        self.placement = self.documents.renew(student, self.placement, terms, looked_at)
        found, scanned = self.selection(student, self.placement)
        score = float(found.mean())
        self.history.append({"epoch": self.epoch, "loss": self.loss, "overlap_at_10": score, "codes_scanned": scanned})
        bar.set_postfix({"selection overlap@10": f"{score:.4f}"})
        if config.progress:
            logger.info("epoch %d of %d: overlap@10 of the selection queries %.4f", self.epoch, config.epochs, score)
        with self.documents.world.together():  # other processes may have been given none
            if self.on_epoch is not None and self.documents.world.main:
                self.on_epoch(dict(self.history[-1]))
        forced = self.epoch == 1 and not self.start_counts
        if forced:
            self.highest = None  # that of the start, which can't be kept
        usable = scanned <= self.limit or self.epoch == 0
        as_good = self.highest is None or not self.documents.world.agreed(fell(self.highest, found))
        if (as_good and usable) or forced:
            self.best = Best(copy.deepcopy(student.state_dict()), self.placement, terms, self.epoch)
            self.highest = found if self.highest is None else max(self.highest, found, key=np.mean)
        elif self.best is not None and self.epoch - self.best.epoch >= config.patience:
            return []
        if last:
            return []
        if lesson is None:
            self.hard = self.objective.mine(student, self.placement)
            lesson = self._lesson(self.hard)
        return lesson

    def _learn(self, step: Step) -> None:
        """One step of Adam."""
        value = self.objective(self.student, self.placement, step)
        self.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        value = value.detach()
        world = self.documents.world
        world.add([*_gradients(self.optimizer, world), value])
        self.optimizer.step()
        self.scheduler.step()
        self.total, self.done = self.total + value.item(), self.done + 1

    def _end(self, steps: int) -> None:
        """The epoch is over."""
        self.loss, self.total, self.done, self.epoch = self.total / steps, 0.0, 0, self.epoch + 1
        if not math.isfinite(self.loss):
            raise InputError(
                "learning_rate",
                "a rate, temperature and weights at which the loss stays finite",
                f"{self.loss} in epoch {self.epoch}",
                "lower learning_rate, centroid_rate or codebook_rate",
            )

    def _lesson(self, hard: Tensor | None) -> list[Step]:
        """The steps of an epoch, each with ``batch`` of the queries, in random order."""
        order = torch.randperm(self.n_queries, generator=self.generator)
        starts = range(0, self.n_queries - self.batch + 1, self.batch)
        return [self.objective.step(order[i : i + self.batch], hard, self.generator) for i in starts]

    def _keep(self) -> None:
        """Leave a checkpoint in the work folder; placements of their own, as they stay for an epoch."""
        if not self.workdir.keeps:
            return
        start = time.monotonic()
        assert self.best is not None
        assert self.highest is not None
        placements = {self.epoch: self.placement, self.best.epoch: self.best.placement}
        for epoch, placement in placements.items():
            if not self.workdir.has(f"placement-{epoch}"):
                self.workdir.keep(f"placement-{epoch}", Stored(placement.stored(), {}))
        adam = {f"{i}/{k}": v for i, state in self.optimizer.state_dict()["state"].items() for k, v in state.items()}
        random = {"drawn_from": self.drawn_from, "torch": torch.get_rng_state()}
        if self.documents.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.documents.device)
        arrays = named("student", self.student.state_dict()) | named("adam", adam) | named("random", random)
        arrays |= named("best", self.best.parameters) | named("terms", self.best.terms.stored())
        arrays["highest"] = torch.from_numpy(self.highest)
        if self.hard is not None:
            arrays["hard"] = self.hard
        numbers = {name: getattr(self, name) for name in ("epoch", "done", "total", "loss", "history")}
        best = {"best": self.best.epoch, "offset": self.best.terms.offset}
        self.workdir.keep("training", Stored(arrays, numbers | best))
        for epoch in range(self.epoch):
            if epoch not in placements:
                self.workdir.forget(f"placement-{epoch}")
        now = time.monotonic()
        self.due = now + max(INTERVAL, (now - start) / COST)

    def _restore(self, stored: Stored) -> list[Step]:
        """Go back to a checkpoint; the steps of its epoch."""
        arrays, facts = stored.arrays, stored.facts
        for name in ("epoch", "done", "total", "loss", "history"):
            setattr(self, name, facts[name])
        self.placement, best = (self._placement(epoch) for epoch in (self.epoch, facts["best"]))
        terms = Terms.restored(within("terms", arrays), facts["offset"])
        self.best, self.highest = Best(within("best", arrays), best, terms, facts["best"]), arrays["highest"].numpy()
        self.student.load_state_dict(within("student", arrays))
        adam = self.optimizer.state_dict()
        for key, value in within("adam", arrays).items():
            number, _, name = key.partition("/")
            adam["state"].setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict(adam)
        steps = self.epoch * (self.n_queries // self.batch) + self.done
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warm_cosine(self.steps), steps - 1)
        random = within("random", arrays)
        if self.documents.world.main:  # each process has its own
            torch.set_rng_state(random["torch"])
            if "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.documents.device)
        self.due = time.monotonic() + INTERVAL
        self.drawn_from, self.hard = random["drawn_from"], arrays.get("hard")
        self.generator.set_state(self.drawn_from)
        return self._lesson(self.hard)

    def _placement(self, epoch: int) -> Placement:
        found = self.workdir.found(f"placement-{epoch}")
        if found is None:
            raise InputError("workdir", f"the placement-{epoch} of its checkpoint", "none", "remove the folder")
        return restored_placement(found.arrays)


def named(group: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same arrays with names that say what they belong to."""
    return {f"{group}/{name}": value for name, value in arrays.items()}


def within(group: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a group, by their own names."""
    return {name.removeprefix(f"{group}/"): value for name, value in arrays.items() if name.startswith(f"{group}/")}


def fell(before: Float64, after: Float64) -> bool:
    """Whether the same queries, one value each, have less after than before, beyond chance (paired t-test).

    Learning rates decay, so a later epoch is usually the better one, and a few dozen queries can't rank epochs
    reliably.
    """
    from scipy.special import stdtrit  # which takes a while to import

    n, difference = len(before), after - before
    return bool(difference.mean() < stdtrit(n - 1, CHANCE) * difference.std(ddof=1) / math.sqrt(n))


def _gradients(optimizer: torch.optim.Optimizer, world: World) -> list[Tensor]:
    """Those of all parameters that are learned; of what one of several processes did not use, zeros."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters if world.size > 1 else ():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _looked_at(
    documents: Documents, selection: Selection, lesson: list[Step] | None, routed: Int64 | None
) -> Int64 | None:
    """The documents that a placement is asked for until it is renewed, ascending; None for all."""
    if lesson is None:
        return None
    drawn = [step.own.flatten().numpy() for step in lesson]
    if routed is not None:
        drawn.append(routed)
    rows = np.unique(np.concatenate([documents.sample, selection.rows, *drawn]))
    return rows[rows >= 0]


def _optimizer(student: Student, documents: float, config: DistillConfig) -> torch.optim.Adam:
    """Adam on what is learned of a student, where ``documents`` are spread so much."""
    groups = []
    for parameter, rate, learned in (
        (student.centroids, config.centroid_rate, config.learn is not Learn.CODEBOOKS),
        (student.router, config.centroid_rate, config.learn is not Learn.CODEBOOKS),
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
        weights = [parameter for parameter in student.query_encoder.parameters() if parameter.requires_grad]
        groups += [{"params": weights, "lr": config.query_encoder_rate}] if weights else []
    return torch.optim.Adam(groups)


def warm_cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factor of a step: linear warm-up over 5 % of ``steps``, then cosine decay to 0."""
    warm = max(1, steps // 20)
    return lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))))
