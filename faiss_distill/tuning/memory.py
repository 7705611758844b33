"""How much memory a run takes beside the index, and whether its columns are mapped to keep within what it may."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from faiss_distill.config import DistillConfig
from faiss_distill.errors import DistillError, InputError
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.state import code_dtype
from faiss_distill.workdir import made

logger = logging.getLogger(__name__)

FIXED = 512 * 2**20
"""Libraries that are loaded on the way, blocks of the corpus, what the search for codes holds, a step of training."""
NUMBERS = 8 * 8
"""Bytes a vector of columns: ids, lists and rows as they are and as they become."""
COPIES = 10
"""Of centroids and codebooks: as they were, as they are learned and best, with gradients and Adam's averages."""
REFUSED = ("can't allocate memory", "not enough memory", "bad_alloc")
"""What torch and faiss say where the system gives them none."""
SORTED = 5 * 8
"""Bytes a vector while something is put into order, or ids are matched."""


def columns_folder(
    adapter: IndexAdapter, n_queries: int, config: DistillConfig, workdir: str | Path | None
) -> Path | None:
    """Where the columns of a run are mapped; None to have them in memory.

    Args:
        adapter: the index.
        n_queries: at most.
        config: ``max_memory`` and ``top_k``.
        workdir: the run's folder.

    Raises:
        InputError: they have to be mapped, and there is no folder.
    """
    columns, rest = needed(adapter, n_queries, config)
    if columns + rest <= config.memory:
        return None
    if workdir is None:
        raise InputError(
            "max_memory",
            f"at least {gigabytes(columns + rest)} without a work folder",
            gigabytes(config.memory),
            "pass workdir=, a folder on a disk, to have codes and lists mapped from there",
        )
    logger.info("memory: up to %s of columns are mapped from %s", gigabytes(columns), workdir)
    return made(workdir)


def check_memory(adapter: IndexAdapter, n_queries: int, config: DistillConfig) -> None:
    """Refuse a bound that can't be kept even with all columns mapped.

    Raises:
        InputError: it is too low.
    """
    _, rest = needed(adapter, n_queries, config)
    if rest > config.memory:
        raise InputError(
            "max_memory",
            f"at least {gigabytes(rest)} for {n_queries} queries and the new lists of {adapter.core.ntotal} vectors",
            gigabytes(config.memory),
            "raise it, or lower max_queries or top_k",
        )


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """Say in one sentence that memory ran out.

    Args:
        device: that tensors are on.

    Raises:
        DistillError: it did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise DistillError(
                "device", f"enough memory on {device!r}", reason,
                "pass device='cpu', or lower block_rows, batch_size or max_queries",
            ) from error  # fmt: skip
        if isinstance(error, MemoryError) or any(words in str(error) for words in REFUSED):
            raise DistillError(
                "max_memory", "enough memory", reason or "none left",
                "set it, with a workdir, to have codes and lists mapped from a disk, or lower max_queries or top_k",
            ) from error  # fmt: skip
        raise


def needed(adapter: IndexAdapter, n_queries: int, config: DistillConfig) -> tuple[int, int]:
    """Bytes of columns, with a row for each vector, and of all else that a run holds beside the index, at most."""
    books, n = adapter.codebooks, sum(core.ntotal for core in adapter.cores)
    code = adapter.code_size if books is None else books.n_codes * code_dtype(books.ksub)().itemsize
    queries = n_queries * (16 * adapter.index.d + 84 * config.depth)
    tables = 1 + (config.router or adapter.traits.router)
    parameters = tables * adapter.nlist * adapter.core.d + (0 if books is None else int(np.prod(books.shape)))
    return n * (NUMBERS + 2 * code), FIXED + queries + 4 * COPIES * parameters + n * (SORTED + adapter.copies)


def gigabytes(size: float) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.2f} GB"
