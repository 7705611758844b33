"""Who teaches: what was passed for that, or the cheapest search that finds nearly all exact neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data.formats import is_file
from faiss_distill.data.ids import read_integers
from faiss_distill.data.neighbours import Neighbours, read_neighbours
from faiss_distill.data.queries import Queries
from faiss_distill.errors import InputError
from faiss_distill.index.files import read_index
from faiss_distill.index.registry import check_searchable
from faiss_distill.learning.given_teacher import GivenTeacher, compared, found_by, rescored
from faiss_distill.learning.list_teacher import ListTeacher, teacher_for
from faiss_distill.learning.teacher import Teacher
from faiss_distill.state import Int64
from faiss_distill.tuning.task import Task


def open_teacher(teacher: Any, d: int) -> tuple[Any, Any]:
    """What was passed as a teacher: neighbours, yet unchecked, and an index to search; of which at most one.

    Args:
        teacher: ``(ids, scores)``, a ``.npz`` of these, ids alone, a file of such, a faiss index, a file of one, or
            None.
        d: dimensions of the queries.

    Raises:
        InputError: a file is neither, or the index can't be searched with the queries.
    """
    if isinstance(teacher, str | Path):
        path = Path(teacher)
        if path.suffix == ".npz":
            return read_neighbours(path, "teacher"), None
        if is_file(path):
            return read_integers(path, "teacher"), None
        try:
            teacher = read_index(path)
        except InputError as error:
            hint = "or pass a .npz of the arrays ids and scores, or a file of ids, such as .ivecs"
            raise replace(error, argument="teacher", hint=hint) from error
    if teacher is None or isinstance(teacher, tuple | list) or hasattr(teacher, "shape"):
        return teacher, None
    check_searchable(teacher, d, "teacher", "a faiss index, (ids, scores), ids alone, or the path of one of these")
    return None, teacher


def teacher_of(
    task: Task, training: Queries, index: Any, exact: Teacher, depth: int, rng: np.random.Generator
) -> Teacher | ListTeacher | GivenTeacher:
    """The teacher of the training queries.

    Args:
        task: what was passed.
        training: the queries, with their neighbours if these were passed.
        index: another index, which finds them; or None.
        exact: exhaustive search.
        depth: neighbours a query.
        rng: source of randomness.

    Raises:
        InputError: what was passed belongs to other queries or embeddings.
    """

    def cheapest(which: Int64) -> Teacher | ListTeacher:
        some = training.take(which)
        return teacher_for(
            exact, task.corpus, task.sample, task.adapter.transforms, some.vectors, depth, some.rows, rng
        )

    known = training.neighbours
    if index is not None:
        known = found_by(index, exact, task.corpus, task.sample_ids, training, depth)
    if known is None:
        return cheapest(np.arange(len(training.vectors)))
    if known.lack_scores:
        known = known.scored(rescored(exact, task.corpus, training.vectors, known.rows))
        known = Neighbours(*exact.world.agreed((known.rows, known.scores)))
    return GivenTeacher(known, cheapest, compared(exact, task.corpus, training, known, depth, rng))
