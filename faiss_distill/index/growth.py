"""Vectors added to an index whose lists and codes were chosen elsewhere: in a copy of it that held no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.data.ids import NOTHING, examples
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.copies import copy_of
from faiss_distill.index.parts.containers import REFINEMENTS
from faiss_distill.index.parts.transaction import Change, Transaction
from faiss_distill.index.registry import open_index
from faiss_distill.state import Float32, Int64

DIRECT_MAP: Any = faiss.DirectMap  # type: ignore[attr-defined]
COUNTS = ("ntotal", "ntotal2")
"""What says how many vectors an index holds; the second of FastScan without lists, rounded up to a block."""


class Growth:
    """An index to which vectors are added, and an empty copy of it that takes them first.

    Args:
        index: the index, which is not touched before :meth:`merge`.
        n: how many vectors are to be added.
        ids: as a search shall return them, int64 ``(n,)``; None to number them from ``ntotal`` on, as faiss does.

    Attributes:
        index: the index, opened.
        ids: of the new vectors, int64 ``(n,)``.
        part: the copy.

    Raises:
        UnsupportedIndexError: nothing can be added to such an index.
        InputError: the ids are in the index already, not distinct, or none that it takes.
    """

    def __init__(self, index: Any, n: int, ids: Int64 | None) -> None:
        """Check everything and make the copy."""
        self.index = adapter = open_index(index)
        self._levels = list(_levels(index))
        _check_kind(self._levels)
        _check_counts(self._levels)
        self.state = adapter.extract()
        self._numbered = not _takes_ids(self._levels)
        self.ids = self._checked(n, ids)
        self.part = copy_of(index)
        core: Any = list(_levels(self.part))[-1]
        if isinstance(core, faiss.IndexIVF):
            lists: Any = core.invlists
            core.set_direct_map_type(DIRECT_MAP.NoMap)
            if type(faiss.downcast_InvertedLists(lists)) is faiss.OnDiskInvertedLists:
                memory: Any = faiss.ArrayInvertedLists(core.nlist, core.code_size)  # those on disk stay as they are
                memory.this.disown()
                core.replace_invlists(memory, True)
        self.part.reset()

    def _checked(self, n: int, ids: Int64 | None) -> Int64:
        """The ids of the new vectors, none of them in use."""
        following = np.arange(self.index.index.ntotal, self.index.index.ntotal + n)
        if ids is None:
            ids = following
        if ids.shape != (n,):
            raise InputError("ids", f"{n} integers, one a row", f"shape {ids.shape}")
        if (ids == NOTHING).any():
            raise InputError("ids", "others than -1, which faiss returns where it found nothing", "it")
        if len(np.unique(ids)) < n:
            raise InputError("ids", "distinct ids", f"{n - len(np.unique(ids))} repeated")
        used = np.intersect1d(ids, self.index.outer_ids(self.state.ids))
        if len(used):
            hint = "remove the old vectors first, or pass ids= of new ones"
            raise InputError("ids", "ids that are not in the index", f"{len(used)} that are ({examples(used)})", hint)
        if self._numbered and not np.array_equal(ids, following):
            raise InputError(
                "ids", f"None for an {type(self._levels[-1]).__name__} that numbers its vectors itself", "others",
                "put it into a faiss.IndexIDMap, or without a direct map of the array kind",
            )  # fmt: skip
        return ids

    @property
    def part_ids(self) -> Int64 | None:
        """The ids that the new vectors have in the copy; None if row ``i`` has id ``i``."""
        return None if self._numbered else self.ids

    def fill(self, blocks: Iterable[tuple[int, Float32]]) -> None:
        """Have faiss add the new vectors to the copy, which are read block by block."""
        for start, block in blocks:
            if self._numbered:
                self.part.add(block)
            else:
                self.part.add_with_ids(block, self.ids[start : start + len(block)])

    def merge(self, file: Path | None = None) -> None:
        """Put what the copy holds into the index, all of it or, where anything is raised, nothing.

        Lists and codes of the vectors that the index holds stay as they are.

        Args:
            file: where the inverted lists go, a file that does not exist yet; None for memory.

        Raises:
            OSError: the file can't be written.
        """
        adapter, state, new = self.index, self.state, open_index(self.part).extract()
        mapped = any(isinstance(level, faiss.IndexIDMap) for level in self._levels)
        inside = new.ids + adapter.core.ntotal if mapped or self._numbered else new.ids
        grown = replace(
            state,
            assignment=np.concatenate([state.assignment, new.assignment]),
            codes=np.concatenate([state.codes, new.codes]),
            ids=np.concatenate([state.ids, inside]),
        )
        with Transaction([_Counted(self._levels, list(_levels(self.part)), self.ids)]) as change:
            words = None if adapter.codebooks is None else adapter.codebooks.copy()
            change.join(adapter.write(grown, None, words=words, file=file))
            change.commit()


class _Counted(Change):
    """What containers keep of new vectors, and how many vectors they and the index inside count.

    Args:
        levels: the index, from the outside in.
        others: those of the copy that holds the new vectors.
        ids: of the new vectors, int64 ``(n,)``.
    """

    def __init__(self, levels: list[Any], others: list[Any], ids: Int64) -> None:
        """Keep the counts."""
        self._levels, self._others, self._ids = levels, others, ids
        self._counts = [(x, name, getattr(x, name)) for x in levels for name in COUNTS if hasattr(x, name)]

    def apply(self) -> None:
        """Count the new ones."""
        for level, name, count in self._counts:
            setattr(level, name, count + len(self._ids))
            if name == "ntotal2":
                level.ntotal2 = -(-level.ntotal // level.bbs) * level.bbs
        for level, other in zip(self._levels, self._others, strict=True):
            if isinstance(level, faiss.IndexIDMap):
                both = np.concatenate([faiss.vector_to_array(level.id_map), self._ids])
                faiss.copy_array_to_vector(both, level.id_map)
                _map_back(level)
            elif isinstance(level, REFINEMENTS):
                fine: Any = faiss.downcast_index(level.refine_index)
                new: Any = faiss.downcast_index(other.refine_index)
                fine.add_sa_codes(faiss.vector_to_array(new.codes).reshape(new.ntotal, -1))

    def undo(self) -> None:
        """Forget them."""
        for level, name, count in self._counts:
            setattr(level, name, count)
            if name == "ntotal" and isinstance(level, faiss.IndexIDMap):
                level.id_map.resize(count)
                _map_back(level)
            elif name == "ntotal" and isinstance(level, REFINEMENTS):
                fine: Any = level.refine_index
                if fine.ntotal > count:
                    fine.remove_ids(faiss.IDSelectorRange(count, fine.ntotal))


def _map_back(level: Any) -> None:
    if isinstance(level, faiss.IndexIDMap2):
        level.construct_rev_map()


def _levels(index: Any) -> Iterator[Any]:
    """An index and those inside of it, of their real classes, from the outside in."""
    while True:
        level: Any = faiss.downcast_index(index)
        yield level
        if isinstance(level, REFINEMENTS):
            index = level.base_index
        elif isinstance(level, faiss.IndexPreTransform | faiss.IndexIDMap):
            index = level.index
        else:
            return


def _check_kind(levels: list[Any]) -> None:
    if isinstance(levels[-1], faiss.IndexShards | faiss.IndexReplicas):
        kind = type(levels[-1]).__name__
        hint = "call index.add, and then apply the parameters with all embeddings"
        raise UnsupportedIndexError("index", "one that can be merged with another", f"an {kind}", hint)
    for level in levels:
        fine = faiss.downcast_index(level.refine_index) if isinstance(level, REFINEMENTS) else None
        if fine is not None and not isinstance(fine, faiss.IndexFlatCodes):
            found = f"one refined by an {type(fine).__name__}"
            hint = "call index.add, and then apply the parameters with all embeddings"
            raise UnsupportedIndexError("index", "one that can be merged with another", found, hint)


def _check_counts(levels: list[Any]) -> None:
    """Refuse a refinement that holds more vectors than the index inside: faiss gives new ones the ids of others."""
    for level in levels:
        if not isinstance(level, REFINEMENTS):
            continue
        if not level.ntotal == level.base_index.ntotal == level.refine_index.ntotal:
            raise InputError(
                "index",
                f"an {type(level).__name__} with as many vectors as the index inside",
                "one with others, as after removing some there",
                "rebuild it",
            )


def _takes_ids(levels: list[Any]) -> bool:
    """Whether ``add_with_ids`` works."""
    for level in levels:
        if isinstance(level, faiss.IndexIDMap):
            return True
        if isinstance(level, REFINEMENTS):
            return False
    core = levels[-1]
    return isinstance(core, faiss.IndexIVF) and bool(core.direct_map.type != DIRECT_MAP.Array)
