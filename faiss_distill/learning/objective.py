"""The loss of a batch, which training lowers, and the recall that chooses the epoch (Distill-VQ Eq. 5-12)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from faiss_distill.config import DistillConfig, Learn
from faiss_distill.learning.candidates import Candidates, members
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.lists import probed_lists, router_loss
from faiss_distill.learning.placement import Placement
from faiss_distill.learning.students import Student, similarity
from faiss_distill.learning.taught import StudentQueries, Taught
from faiss_distill.learning.teacher import Teacher
from faiss_distill.losses import LOSSES
from faiss_distill.state import Float64, Int64

MAX_OF_THE_BEST = 128
"""Candidates of a query that a loss of the best sees, at most."""
ROUTED = 10
"""Nearest documents of a query that a router learns to lead it to."""


class Selection:
    """Overlap@10 of a student on the selection queries, as a search of the union of their Top-K would have it.

    Lists are probed exactly, and documents have the codes that they have in training. No faiss index is built.

    Args:
        documents: the corpus.
        taught: the selection queries.
        nprobe: lists probed.

    Attributes:
        rows: of these documents, ascending int64.
        spread: root mean square of the documents about their mean.
    """

    def __init__(self, documents: Documents, taught: Taught, nprobe: int) -> None:
        """Gather the documents."""
        device, own = documents.device, taught.queries.rows
        self._documents, self.rows = documents, np.unique(taught.top)
        self._vectors = documents.vectors(self.rows)
        self._queries = StudentQueries(taught.queries, documents.transforms, device)
        self._truth = torch.from_numpy(np.searchsorted(self.rows, taught.top[:, :10])).to(device)
        self._own = None if own is None else torch.from_numpy(self.rows == own[:, None]).to(device)
        self._nprobe = nprobe
        self.spread = spread(self._vectors)

    @torch.no_grad()
    def __call__(self, student: Student, placement: Placement) -> tuple[Float64, float]:
        """Overlap@10 of each query, 0 to 1, float64 ``(nq,)``, and codes that one scans on average."""
        world, lists = self._documents.world, placement.lists_of(self.rows, self._vectors.device)
        n = len(self._truth)
        own = world.share(n)
        queries = self.queries(student)[own]
        codes = placement.codes_of(student, self.rows, lambda: self._vectors)
        scores = student.full_scores(queries, lists, codes)
        opened = probed_lists(queries, student.signposts, self._nprobe, student.coarse_metric)
        probed = opened[:, lists]
        hidden = ~probed if self._own is None else ~probed | self._own[own]
        best = scores.masked_fill(hidden, -torch.inf).topk(10, dim=1)
        found = best.indices.masked_fill(best.values.isneginf(), -1)
        overlap = (found[:, :, None] == self._truth[own, None, :]).any(dim=2).double().mean(dim=1)
        lengths = torch.from_numpy(self._documents.lengths(placement.lists, opened.shape[1]))
        scanned = (opened.cpu() * lengths).sum(dim=1)
        both = world.gathered(torch.stack([overlap.cpu(), scanned.double()], dim=1).numpy(), n)
        return world.agreed((both[:, 0].copy(), float(both[:, 1].mean())))

    def queries(self, student: Student) -> Tensor:
        """The selection queries as the student has them, ``(nq, d)`` on the device."""
        return self._queries.all(student)


class Step(NamedTuple):
    """Some of the training queries, and the documents drawn for them.

    Attributes:
        batch: which queries, int64 ``(nq,)``.
        own: each one's documents, -1 as padding, int64 ``(nq, s)``.
    """

    batch: Tensor
    own: Tensor


class Objective:
    """The loss of a batch, of the full and of the coarse scores (Distill-VQ Eq. 5-12), or of a peer's objective.

    Args:
        documents: the corpus.
        taught: the training queries.
        teacher: their reference.
        temperature: divides all scores.
        config: ``loss``, ``candidates``, ``learn`` and ``balance``.
        search: what the index finds for the training queries under a student's parameters and a placement, corpus
            rows, best first, -1 as padding, int64 ``(nq, K)``; called for mixtures with hard candidates only.
    """

    def __init__(
        self,
        documents: Documents,
        taught: Taught,
        teacher: Teacher,
        temperature: float,
        config: DistillConfig,
        search: Callable[[Student, Placement], Int64],
    ) -> None:
        """Make tensors of the queries."""
        own = taught.queries.rows
        self._documents, self._teacher, self._temperature, self._config = documents, teacher, temperature, config
        self._mixture, self._search, self._loss = config.mixture, search, LOSSES[config.loss]
        self._candidates = Candidates(self._mixture, taught.top, taught.relevant, documents.corpus.n)
        labelled = self._mixture.has("gt") and taught.relevant is not None
        self._relevant = torch.from_numpy(taught.relevant) if labelled else None
        self._exact, self._nearest = torch.from_numpy(taught.queries.vectors), taught.top[:, :ROUTED]
        self._queries = StudentQueries(taught.queries, documents.transforms, documents.device)
        self._own = None if own is None else torch.from_numpy(own)

    @property
    def routed(self) -> Int64:
        """The documents whose lists a router learns to lead to, ascending."""
        return np.unique(self._nearest)

    @property
    def mines(self) -> bool:
        """Whether candidates depend on what the index finds, and so on the placement of all documents."""
        return self._mixture.has("hard")

    def mine(self, student: Student, placement: Placement) -> Tensor | None:
        """Before an epoch: hard candidates for it, int64 ``(nq, K)``, if the mixture has them."""
        return torch.from_numpy(self._search(student, placement)) if self.mines else None

    def step(self, batch: Tensor, hard: Tensor | None, generator: torch.Generator) -> Step:
        """What the queries ``batch``, int64 ``(nq,)``, are to be scored on."""
        return Step(batch, self._candidates.draw(batch, hard, generator))

    def __call__(self, student: Student, placement: Placement, step: Step) -> Tensor:
        """This process's share of the loss of a step, a scalar: those of all processes add up to it."""
        own = self._documents.world.share(len(step.batch))
        batch = step.batch[own]
        candidates, scored = self._candidates.shared(step.own)
        if len(candidates) == 0:  # the index found nothing for any of them: no gradient
            return 0.0 * torch.stack([p.sum() for p in student.parameters() if p.requires_grad]).sum()
        rows = candidates.numpy()
        lists = placement.lists_of(rows, self._documents.device)
        learn = self._config.learn
        terms: list[Tensor] = []
        if self._loss.compares == "vectors":
            own = self._documents.world.share(len(rows))
            weight = (own.stop - own.start) / len(rows)
            rows, lists = rows[own], lists[own]
            vectors = cache(partial(self._documents.vectors, rows))
            if learn is not Learn.CENTROIDS:
                codes = placement.codes_of(student, rows, vectors)
                terms.append(weight * self._loss.function(vectors(), student.reconstruct(lists, codes)))
            if learn is not Learn.CODEBOOKS:
                terms.append(weight * self._loss.function(vectors(), student.centroids.index_select(0, lists)))
        else:
            queries = self._queries(student, batch)
            scored = None if scored is None else scored[own]
            share = len(batch) / len(step.batch)
            compare = self._comparison(batch, candidates, self._documents.exact(rows), scored, share)
            if learn is not Learn.CENTROIDS:
                # Codes follow the codebooks; gradients flow through the chosen codewords.
                codes = placement.codes_of(student, rows, partial(self._documents.vectors, rows))
                terms.append(compare(student.full_scores(queries, lists, codes)))
            if learn is not Learn.CODEBOOKS:
                if student.router is None:
                    terms.append(compare(student.coarse_scores(queries, lists)))
                else:
                    terms.append(share * self._routed(student, placement, queries, batch))
        if self._config.balance and len(terms) == 2:
            full, coarse = terms
            whole = torch.stack(terms).detach()
            self._documents.world.add([whole])
            return full + coarse * (whole[0] / whole[1].clamp(min=1e-30))
        return torch.stack(terms).sum()

    def _routed(self, student: Student, placement: Placement, queries: Tensor, batch: Tensor) -> Tensor:
        """How badly ``queries (nq, d)``, those of ``batch (nq,)``, are led to the lists of their nearest documents."""
        nearest = self._nearest[batch.numpy()]
        lists = placement.lists_of(nearest.ravel(), self._documents.device).reshape(nearest.shape)
        scores = similarity(queries, student.signposts, student.coarse_metric)
        lengths = torch.from_numpy(self._documents.lengths(placement.lists, scores.shape[1])).to(scores)
        return router_loss(scores / self._temperature, lists, lengths)

    def _comparison(
        self, batch: Tensor, candidates: Tensor, exact: Tensor, scored: Tensor | None, share: float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        """The loss of undivided student scores ``(nq, k)`` of this ``share`` of a batch, as a part of the batch's."""
        device, temperature, loss = self._documents.device, self._temperature, self._loss
        targets = self._teacher.scores(self._exact[batch].to(device), exact) / temperature
        mask = scored
        if self._own is not None:
            other = candidates != self._own[batch, None]
            mask = other if mask is None else mask & other
        mask = None if mask is None else mask.to(device)
        if loss.compares == "labels":
            if self._relevant is not None:
                positives = members(candidates, self._relevant[batch]).to(device)
            else:
                best = (targets if mask is None else targets.masked_fill(~mask, -torch.inf)).argmax(dim=1, keepdim=True)
                positives = torch.zeros_like(targets, dtype=torch.bool).scatter_(1, best, True)
            labelled = (positives if mask is None else positives & mask).any(dim=1).sum()
            weight = self._share_of_sum(int(labelled))
            return lambda scores: weight * loss.function(scores / temperature, positives, mask)
        weight = share
        if loss.of_the_best and targets.shape[1] > MAX_OF_THE_BEST:
            liked = targets if mask is None else targets.masked_fill(~mask, -torch.inf)
            kept = liked.topk(MAX_OF_THE_BEST, dim=1).indices
            targets, mask = targets.gather(1, kept), None if mask is None else mask.gather(1, kept)
            return lambda scores: weight * loss.function(scores.gather(1, kept) / temperature, targets, mask)
        return lambda scores: weight * loss.function(scores / temperature, targets, mask)

    def _share_of_sum(self, count: int) -> float:
        """This process's ``count`` as a share of the sum over all processes."""
        total = torch.tensor([float(count)])
        self._documents.world.add([total])
        return count / max(float(total), 1.0)


def spread(vectors: Tensor) -> float:
    """Root mean square of ``vectors (..., n, d)`` about their mean over ``n``."""
    return float((vectors - vectors.mean(dim=-2, keepdim=True)).square().mean().sqrt())
