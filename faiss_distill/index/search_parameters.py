"""Parameters of a search, under the names that faiss's ``ParameterSpace`` has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import faiss

from faiss_distill.errors import InputError

untyped: Any = faiss
"""faiss's type stubs lack some of what is used here."""
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
            "parameters", f"some of {', '.join(ranges(index)) or 'none'}, which the index has", repr(text)
        ) from error


def search_parameters(index: Any, values: Mapping[str, float]) -> Any:
    """What faiss takes as ``params`` of a search: the index's own parameters, but for ``values``; nothing is set.

    Args:
        index: any that :func:`takes_parameters`.
        values: by the names of :data:`OFFERED`.

    Returns:
        A ``faiss.SearchParameters``, or None if there is nothing to say.
    """
    index = faiss.downcast_index(index)
    if not values:
        return None
    if isinstance(index, faiss.IndexPreTransform):
        return untyped.SearchParametersPreTransform(index_params=search_parameters(index.index, values))
    if isinstance(index, faiss.IndexIDMap):
        return search_parameters(index.index, values)
    if isinstance(index, faiss.IndexShards):
        whole: Any = index
        return search_parameters(whole.at(0), values)
    if isinstance(index, faiss.IndexRefine):
        return untyped.IndexRefineSearchParameters(
            k_factor=float(values.get("k_factor_rf", index.k_factor)),
            base_index_params=search_parameters(index.base_index, values),
        )
    if isinstance(index, faiss.IndexIVF):
        return untyped.SearchParametersIVF(
            nprobe=int(values.get("nprobe", index.nprobe)),
            max_codes=index.max_codes,
            quantizer_params=search_parameters(index.quantizer, of_quantizer(values)),
        )
    if isinstance(index, faiss.IndexHNSW):
        hnsw: Any = index.hnsw
        return untyped.SearchParametersHNSW(
            efSearch=int(values.get("efSearch", hnsw.efSearch)),
            check_relative_distance=hnsw.check_relative_distance,
            bounded_queue=hnsw.search_bounded_queue,
        )
    return None


def of_quantizer(values: Mapping[str, float]) -> dict[str, float]:
    """Those of a coarse quantizer, by the names that they have there."""
    prefix = "quantizer_"
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def takes_parameters(index: Any) -> bool:
    """Whether a search of an index takes parameters: not so if an ``IndexReplicas`` is in it, or additive FastScan."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap):
        return takes_parameters(index.index)
    if isinstance(index, faiss.IndexRefine):
        return takes_parameters(index.base_index)
    if isinstance(index, faiss.IndexShards):
        whole: Any = index
        return takes_parameters(whole.at(0))
    return not isinstance(index, faiss.IndexReplicas | faiss.IndexIVFAdditiveQuantizerFastScan)


@contextmanager
def searching(index: Any, values: Mapping[str, float]) -> Iterator[Any]:
    """Gives what to pass as ``params`` to a search of ``index`` that is to be at ``values``.

    Nothing is set, so that others may search the index meanwhile; but where it takes no parameters, they are set on it
    and put back at the end.
    """
    if takes_parameters(index):
        yield search_parameters(index, values)
        return
    before = _values(index)
    try:
        set_parameters(index, text_of(values))
        yield None
    finally:
        _restore(before)


def _values(index: Any) -> list[tuple[Any, str, float]]:
    return [(holder, name, getattr(holder, name)) for holder, name in _holders(index)]


def _restore(values: list[tuple[Any, str, float]]) -> None:
    for holder, name, value in values:
        setattr(holder, name, value)


def reranked(index: Any, k: int, values: Mapping[str, float]) -> float:
    """How many vectors a refinement re-ranks in a search for ``k`` at ``values``."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap):
        return reranked(index.index, k, values)
    if isinstance(index, faiss.IndexRefine):
        asked = int(k * values.get("k_factor_rf", index.k_factor))
        return asked + reranked(index.base_index, asked, values)
    whole: Any = index
    if isinstance(index, faiss.IndexShards):
        return sum(reranked(whole.at(i), k, values) for i in range(whole.count()))
    if isinstance(index, faiss.IndexReplicas):  # a query is searched for in one of them
        return reranked(whole.at(0), k, values)
    return 0.0


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
