"""The options that hold: those that a user asks for, with those settled that an index leaves no choice in."""

from __future__ import annotations

from dataclasses import replace

from faiss_distill.config import Assignment, DistillConfig, Encoding, Learn
from faiss_distill.errors import InputError
from faiss_distill.index.registry import IndexAdapter


def settle(config: DistillConfig, adapter: IndexAdapter) -> DistillConfig:
    """The options for an index.

    Args:
        config: those asked for.
        adapter: the index.

    Raises:
        InputError: an option asks for what the index does not have.
    """
    traits, name = adapter.traits, type(adapter.cores[0]).__name__
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
