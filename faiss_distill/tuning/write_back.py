"""What training learned as the arrays that an index is written from, and hard candidates, found by such an index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from faiss_distill.data.alignment import positions
from faiss_distill.evaluation.measure import probing, search
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.placement import CodedPlacement, Placement
from faiss_distill.learning.students import Student, student_of
from faiss_distill.learning.taught import Taught
from faiss_distill.state import IndexState, Int64
from faiss_distill.tuning.task import Task


def written(task: Task, documents: Documents, student: Student, placement: Placement) -> tuple[Any, IndexState]:
    """The student's parameters with codes of the whole corpus, and a quantizer that holds the centroids."""
    centroids = student.centroids.detach().cpu().numpy()
    router = None if student.router is None else student.router.detach().cpu().numpy()
    if task.state.router is None and router is not None and np.array_equal(router, centroids):
        router = None  # it would find the same lists
    quantizer, kept = task.adapter.quantizer_with(centroids, router)  # fp16 rounds
    state = replace(task.sample, centroids=kept, assignment=placement.lists, router=router)
    if student.codebooks is None:  # faiss makes the codes, if centroids change them at all
        encode = task.adapter.encoder(quantizer)
        if encode is None:
            return quantizer, state
        return quantizer, replace(state, codes=documents.stored(encode, state.assignment, state.codes.shape[1]))
    state = replace(state, codebooks=student.codebooks.detach().cpu().numpy())
    if isinstance(placement, CodedPlacement):
        assert placement.rows is None, "documents without a code"
        return quantizer, replace(state, codes=placement.codes)
    stored = student_of(state, student.query_encoder).to(documents.device)  # with what the quantizer kept
    return quantizer, replace(state, codes=documents.nearest_codes(stored, placement.lists))


def mined(
    task: Task, documents: Documents, queries: Taught, depth: int, nprobe: int, student: Student, placement: Placement
) -> Int64:
    """What the index would find for the queries under a student: corpus rows, best first, -1 as padding.

    Args:
        task: the index, which holds what the student learned while it is searched, and is then as it was.
        documents: the corpus.
        queries: ``nq`` of them.
        depth: how many to find.
        nprobe: lists to probe.
        student: the parameters.
        placement: lists and codes under them.

    Returns:
        int64 ``(nq, depth)``.
    """
    quantizer, state = written(task, documents, student, placement)
    own = documents.world.share(len(queries.top))
    asked = task.query_set(queries.take(own), student.query_encoder, documents.device)
    with task.adapter.write(state, quantizer) as change:
        found = change.interruptibly(lambda: search(task.adapter, asked, depth, probing(task.adapter, nprobe)))
    return documents.world.gathered(positions(task.sample_ids, found), len(queries.top))
