"""Copies of an index that share nothing with it.

``faiss.clone_index`` knows neither lists on disk, nor shards and replicas, nor some transforms, and fails for anything
that holds one. So containers are made anew around copies of what is inside, and only the innermost is left to faiss.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from faiss.contrib.inspect_tools import get_invlist

from faiss_distill.errors import InputError

OF_THE_WRAPPER = ("this", "referenced_objects")
"""Python attributes that tie a wrapper to its own C++ object."""
NO_LISTS = b"il00"
"""What faiss writes for an index without inverted lists."""


def copy_of(index: Any) -> Any:
    """A copy of an index of a family that can be tuned, in memory of its own.

    Lists on disk stay there: the copy opens the file once more. Those mapped by ``IO_FLAG_MMAP`` are read into memory,
    as faiss does not know the file any more; nor does it say whether the parts of an ``IndexShards`` or
    ``IndexReplicas`` are searched by a thread each, so for the copy its default holds.
    The index is only read, so others may search it meanwhile.

    Args:
        index: of those that :func:`~faiss_distill.index.registry.open_index` opens.

    Returns:
        An index of the same classes, with all settings and with attributes that were set from Python.

    Raises:
        InputError: the file of lists on disk is no longer there, or another one.
    """
    copy = _copy(index)
    for name, value in vars(index).items():
        if name not in OF_THE_WRAPPER:
            object.__setattr__(copy, name, value)  # faiss's own refuses what C++ does not have
    return copy


def _copy(index: Any) -> Any:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        return _joint(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _transformed(index)
    if isinstance(index, faiss.IndexIDMap):
        return _mapped(index)
    if isinstance(index, faiss.IndexRefine):
        return _refined(index)
    if isinstance(index, faiss.IndexIVF):
        ivf: Any = index
        lists: Any = faiss.downcast_InvertedLists(ivf.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            return _on_disk(index, lists) if lists.filename else _from_map(index, lists)
    try:
        return faiss.clone_index(index)
    except RuntimeError:  # older versions of faiss know fewer families
        return _reread(index)


def _owned(parts: list[Any]) -> bool:
    """Leave parts to their container; the value of its attribute that says so."""
    for part in parts:
        part.this.disown()
    return True


def _joint(index: Any) -> Any:
    if isinstance(index, faiss.IndexShards):
        whole: Any = faiss.IndexShards(index.d)
        whole.successive_ids = index.successive_ids
    else:
        whole = faiss.IndexReplicas(index.d)
    parts = [_copy(index.at(i)) for i in range(index.count())]
    for part in parts:
        whole.addIndex(part)
    whole.own_indices = _owned(parts)
    whole.syncWithSubIndexes()
    return whole


def _transformed(index: Any) -> Any:
    inside = _copy(index.index)
    whole: Any = faiss.IndexPreTransform(inside)
    chain = [_transform(index.chain.at(i)) for i in range(index.chain.size())]
    for transform in reversed(chain):
        whole.prepend_transform(transform)
    whole.own_fields = _owned([inside, *chain])
    return whole


def _transform(transform: Any) -> Any:
    transform = faiss.downcast_VectorTransform(transform)
    if isinstance(transform, faiss.NormalizationTransform):
        return faiss.NormalizationTransform(transform.d_in, transform.norm)
    untyped: Any = faiss  # its type stubs lack the class
    return untyped.Cloner().clone_VectorTransform(transform)


def _mapped(index: Any) -> Any:
    inside = _copy(index.index)
    whole: Any = type(index)(faiss.IndexFlat(inside.d, inside.metric_type))  # faiss takes an empty index only
    whole.index, whole.id_map, whole.ntotal, whole.is_trained = inside, index.id_map, index.ntotal, index.is_trained
    if isinstance(whole, faiss.IndexIDMap2):
        whole.construct_rev_map()
    whole.own_fields = _owned([inside])
    return whole


def _refined(index: Any) -> Any:
    base = _copy(index.base_index)
    if isinstance(index, faiss.IndexRefineFlat):
        flat: Any = faiss.downcast_index(index.refine_index)
        whole: Any = faiss.IndexRefineFlat(base, flat.get_xb())
        whole.own_fields = _owned([base])
    else:
        fine = _copy(index.refine_index)
        whole = faiss.IndexRefine(base, fine)
        whole.own_fields = whole.own_refine_index = _owned([base, fine])
    whole.k_factor = index.k_factor
    return whole


def _on_disk(index: Any, lists: Any) -> Any:
    """By way of faiss's format, which holds the name of the file that lists are in instead of them."""
    try:
        copy = _reread(index, faiss.IO_FLAG_READ_ONLY if lists.read_only else 0)
    except RuntimeError as error:
        raise InputError(
            "index",
            f"to open the file of its inverted lists, {lists.filename!r}, once more",
            str(error).splitlines()[-1],
        ) from error
    same = (map(np.array_equal, get_invlist(lists, i), get_invlist(copy.invlists, i)) for i in range(index.nlist))
    if not all(all(of_list) for of_list in same):
        raise InputError(
            "index",
            f"its inverted lists in {lists.filename!r}, which it was read from",
            "others: the file was replaced",
            "read the index again",
        )
    return copy


def _from_map(index: Any, lists: Any) -> Any:
    """With lists in memory, in place of those that end what faiss writes, which it could not read."""
    untyped: Any = faiss  # its type stubs lack the function
    writer: Any = faiss.VectorIOWriter()
    untyped.write_InvertedLists(lists, writer)
    written = faiss.serialize_index(index)[: -writer.data.size()]
    copy = _reread(index, 0, np.append(written, np.frombuffer(NO_LISTS, dtype=np.uint8)))
    memory: Any = faiss.ArrayInvertedLists(lists.nlist, lists.code_size)
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            memory.add_entries(number, size, lists.get_ids(number), lists.get_codes(number))
    memory.this.disown()
    copy.replace_invlists(memory, True)
    return copy


def _reread(index: Any, flags: int = 0, written: Any = None) -> Any:
    """Written and read, with the settings that faiss does not write."""
    copy = faiss.deserialize_index(faiss.serialize_index(index) if written is None else written, flags)
    for name in dir(type(index)):
        value = getattr(index, name)
        ours = name == "thisown" or name.startswith("own_")  # what is freed with it is the copy's own affair
        if isinstance(value, bool | int | float) and not ours and getattr(copy, name) != value:
            setattr(copy, name, value)
    return copy
