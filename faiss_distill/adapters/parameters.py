"""Parameters of a search, under the names that faiss's ``ParameterSpace`` has for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import faiss

from faiss_distill.errors import InputError

OFFERED = ("nprobe", "quantizer_efSearch", "efSearch", "k_factor_rf")
"""Those of a ``ParameterSpace`` that are looked into. Polysemous filtering (``ht``) is not: it takes codes for hashes,
and tuning does not keep them such."""


def ranges(index: Any) -> dict[str, list[int]]:
    """What faiss would try: ascending values by name; nothing where an index has no parameters."""
    inside = index
    while True:  # a ParameterSpace looks into the other containers itself
        inside = faiss.downcast_index(inside)
        if isinstance(inside, faiss.IndexIDMap):
            inside = inside.index
        elif isinstance(inside, faiss.IndexShards | faiss.IndexReplicas):
            whole: Any = inside
            inside = whole.at(0)
        else:
            break
    space: Any = faiss.ParameterSpace()
    space.initialize(inside)
    found = [space.parameter_ranges.at(i) for i in range(space.parameter_ranges.size())]
    return {r.name: faiss.vector_to_array(r.values).astype(int).tolist() for r in found if r.name in OFFERED}


def text_of(values: Mapping[str, float]) -> str:
    """In faiss's notation, such as ``"nprobe=4,quantizer_efSearch=32"``."""
    return ",".join(f"{name}={value:g}" for name, value in values.items())


def set_parameters(index: Any, text: str) -> None:
    """Set them on an index.

    Args:
        index: any, also one that is inside others.
        text: in faiss's notation, such as ``"nprobe=4,quantizer_efSearch=32"``; empty for none.

    Raises:
        InputError: the index has no such parameter; it is as it was.
    """
    before = _values(index)
    try:
        if text:
            space: Any = faiss.ParameterSpace()
            space.set_index_parameters(index, text)
    except RuntimeError as error:
        _restore(before)  # faiss sets one after the other
        raise InputError(
            f"parameters: expected some of {', '.join(ranges(index)) or 'none'}, which the index has, got {text!r}"
        ) from error


@contextmanager
def searching_with(index: Any, text: str) -> Iterator[None]:
    """:func:`set_parameters` for a while."""
    before = _values(index)
    try:
        set_parameters(index, text)
        yield
    finally:
        _restore(before)


def _values(index: Any) -> list[tuple[Any, str, float]]:
    return [(holder, name, getattr(holder, name)) for holder, name in _holders(index)]


def _restore(values: list[tuple[Any, str, float]]) -> None:
    for holder, name, value in values:
        setattr(holder, name, value)


def reranked(index: Any, k: int) -> float:
    """How many vectors a refinement re-ranks in a search for ``k``."""
    return float(sum(k * holder.k_factor for holder, name in _holders(index) if name == "k_factor"))


def _holders(index: Any) -> Iterator[tuple[Any, str]]:
    """The objects that the parameters of an index are in, each with the attribute."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap):
        yield from _holders(index.index)
    elif isinstance(index, faiss.IndexRefine):
        yield index, "k_factor"
        yield from _holders(index.base_index)
    elif isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        whole: Any = index
        for i in range(whole.count()):
            yield from _holders(whole.at(i))
    elif isinstance(index, faiss.IndexIVF):
        yield index, "nprobe"
        yield from _holders(index.quantizer)
    elif isinstance(index, faiss.IndexHNSW):
        yield index.hnsw, "efSearch"


@contextmanager
def graph_distances() -> Iterator[Callable[[], float]]:
    """Gives the distances that searches have computed since, in the graph of an HNSW index or coarse quantizer."""
    stats: Any = faiss.cvar.hnsw_stats  # type: ignore[attr-defined]
    stats.reset()
    yield lambda: float(stats.ndis)
