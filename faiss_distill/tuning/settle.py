"""The options in effect: what the user asked for, with those fixed that the index leaves no choice about."""

from __future__ import annotations

from dataclasses import replace

from faiss_distill.config import Assignment, DistillConfig, Encoding, Learn
from faiss_distill.errors import InputError
from faiss_distill.index.registry import IndexAdapter
from faiss_distill.tuning.task import Task


def settle(config: DistillConfig, adapter: IndexAdapter) -> DistillConfig:
    """The options for an index.

    Args:
        config: those asked for.
        adapter: the index.

    Raises:
        InputError: an option asks for what the index does not have.
    """
    traits, name = adapter.traits, type(adapter.cores[0]).__name__
    if config.router and traits.no_router is not None:
        raise InputError("router", f"False for an {name}", "True", traits.no_router)
    if traits.codebooks is None:
        if config.learn is Learn.CODEBOOKS:
            raise InputError("learn", "'centroids'", "'codebooks'", f"an {name} has no codebooks")
        if config.encoding is Encoding.FROZEN:
            raise InputError("encoding", f"another than 'frozen' for an {name}, whose lists are what is learned")
        config = replace(config, learn=Learn.CENTROIDS, encoding=Encoding.NEAREST)
    if traits.fixed is not None:
        if config.learn is Learn.CENTROIDS:
            raise InputError("learn", "'codebooks'", "'centroids'", traits.fixed)
        config = replace(config, learn=Learn.CODEBOOKS)
    return config if traits.lists else replace(config, assignment=Assignment.FIXED)


def check_depths(config: DistillConfig, task: Task) -> None:
    """Refuse to look deeper than there are vectors or lists.

    Raises:
        InputError: ``top_k``, ``candidates`` or ``nprobe`` do.
    """
    adapter, n = task.adapter, task.sample.n
    deepest = max(config.depth, config.mixture.depth("hard"), config.mixture.depth("random"))
    if deepest >= n:
        among = f"{n} vectors {'passed' if config.encoding is Encoding.FROZEN else 'stored'}"
        raise InputError("top_k" if deepest == config.top_k else "candidates", f"less than the {among}", str(deepest))
    if config.nprobe is not None and config.nprobe > adapter.nlist:
        lists = f"nlist={adapter.nlist}" if adapter.nlist > 1 else "1, as there is one list"
        raise InputError("nprobe", f"at most {lists}", str(config.nprobe))
