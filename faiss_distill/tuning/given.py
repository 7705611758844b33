"""What tells a run from another: digests of all that was passed, and the options."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from faiss_distill.config import DistillConfig
from faiss_distill.data.queries import Queries
from faiss_distill.data.vectors import Vectors
from faiss_distill.state import IndexState
from faiss_distill.tuning.task import Task

SAMPLED = 1000
"""Embeddings that stand for all, at most."""
ELSEWHERE = ("device", "max_memory", "progress")
"""Options that change no result, but for rounding."""


def given(
    task: Task,
    start: IndexState,
    config: DistillConfig,
    training: Queries,
    validation: Queries,
    fuller_index: Any,
    query_encoder: Any,
) -> dict[str, Any]:
    """By the name of an argument, something that JSON can hold and that is another for another one.

    Args:
        task: the index and its embeddings, of which a sample is looked at.
        start: the parameters to start from.
        config: the options.
        training: queries, with labels and neighbours if they have some.
        validation: queries.
        fuller_index: the index that teaches, if there is one; known by its size.
        query_encoder: what learns along, if it does.
    """
    corpus, known = task.corpus, training.neighbours
    some = np.linspace(0, corpus.n - 1, min(corpus.n, SAMPLED)).astype(np.int64)
    options = {k: getattr(v, "value", v) for k, v in asdict(config).items() if k not in ELSEWHERE}
    learns = query_encoder.state_dict() if isinstance(query_encoder, nn.Module) else {}
    weights = [value for value in learns.values() if isinstance(value, Tensor)]
    teacher = [] if known is None else [known.rows, known.scores]
    if fuller_index is not None:
        teacher = [type(fuller_index).__name__, fuller_index.ntotal]
    return {
        "index": digest(*vars(task.state).values()),
        "embeddings": digest(corpus.n, corpus.take(some)),
        "parameters": digest(start.centroids, start.codebooks, start.router),
        "options": options,
        "queries": digest(training.asked, training.rows, validation.vectors, validation.rows),
        "relevant": digest(training.relevant, validation.relevant),
        "teacher": digest(*teacher),
        "nprobe": task.adapter.nprobe,
        "query_inputs": digest(training.inputs, validation.inputs),
        "query_encoder": digest(*(value.detach().cpu().contiguous().reshape(-1) for value in weights)),
    }


def digest(*values: Any) -> str:
    """What tells arrays, and whatever has a text that says all of it, from others."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):  # of whatever dtype, bfloat16 among them
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(value.view(torch.uint8).numpy().data)
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            found.update(repr(value.tolist()).encode())
        elif isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).view(np.uint8).data)
        else:
            found.update(f"{value!r};".encode())
    return found.hexdigest()


def digest_of_all(corpus: Vectors, block_rows: int) -> str:
    """What tells the embeddings from any others."""
    found = hashlib.sha256()
    for _, block in corpus.blocks(block_rows):
        found.update(block.data)
    return found.hexdigest()
