"""What a transaction does to an index: new parameters, codes and lists, or the index bitwise as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.index.parts import coarse_quantizers
from faiss_distill.index.parts.codebooks import Codebooks
from faiss_distill.index.parts.transaction import Change
from faiss_distill.state import Int64, Packed

ROWS = 2**20
"""Vectors that are sorted into their lists at a time."""


class WriteBack(Change):
    """Puts new parameters and codes into an index.

    Args:
        core: the index to change, without its containers.
        codebooks: those of the index, or None if it has none.
        words: what they shall hold, from their ``holding``.
    """

    def __init__(self, core: Any, codebooks: Codebooks | None, words: Any) -> None:
        """Copy what would be overwritten."""
        self._core, self._codebooks, self._words = core, codebooks, words
        self._old_words = None if codebooks is None else codebooks.copy()

    def _write_codebooks(self) -> None:
        if self._codebooks is not None:
            self._codebooks.overwrite(self._words)

    def _undo_codebooks(self) -> None:
        if self._codebooks is not None:
            self._codebooks.overwrite(self._old_words)


class CodesWriteBack(WriteBack):
    """Puts new codebooks and codes into an index without inverted lists.

    Args:
        core: the index to change.
        codebooks: its codebooks.
        words: what they shall hold.
        holder: an index off to the side that has the new codes; None to leave those of ``core`` alone.
    """

    def __init__(self, core: Any, codebooks: Codebooks, words: Any, holder: Any) -> None:
        """Copy what would be overwritten."""
        super().__init__(core, codebooks, words)
        self._holder = holder
        self._old: Any = faiss.clone_index(core)

    def apply(self) -> None:
        """Put them in."""
        self._write_codes()
        self._write_codebooks()

    def _write_codes(self) -> None:
        if self._holder is not None:
            self._core.codes = self._holder.codes

    def undo(self) -> None:
        """Put back the old ones."""
        self._core.codes = self._old.codes
        self._undo_codebooks()


class IVFWriteBack(WriteBack):
    """Puts new parameters and lists into an index with inverted lists.

    Lists never have two owners, nor does the index refer to lists that someone else may free: it owns the new ones from
    the moment that it refers to them. Where this is cut short between two lines, lists may have no owner, and stay.

    Args:
        core: the index to change.
        codebooks: its codebooks, or None if it has none.
        words: what they shall hold.
        quantizer: a coarse quantizer of the same class as the index's, holding the new centroids, or one with a router,
            of which the index's own is then made the router; None to leave that of ``core`` alone.
        holder: an index off to the side that owns the new inverted lists; None to leave those of ``core`` alone.
        file: where new lists go when the change is committed, a file that does not exist yet; None for memory.
    """

    def __init__(
        self,
        core: Any,
        codebooks: Codebooks | None,
        words: Any,
        quantizer: Any,
        holder: Any,
        file: Path | None = None,
    ) -> None:
        """Copy what would be overwritten."""
        super().__init__(core, codebooks, words)
        self._file = None if holder is None else file
        self._made: Path | None = None
        self._quantizer, self._holder = quantizer, holder
        self._live_quantizer: Any = faiss.downcast_index(core.quantizer)
        self._old_quantizer = None if quantizer is None else faiss.clone_index(core.quantizer)
        self._owns_quantizer, self._routed = core.own_fields, None
        if quantizer is not None and coarse_quantizers.routes(quantizer, self._live_quantizer):
            self._routed = coarse_quantizers.around(self._live_quantizer, quantizer)
        self._old_lists, self._owned, self._nprobe = core.invlists, core.own_invlists, core.nprobe
        # A hash table rebuilt after removals is laid out differently, so the map is copied, not rebuilt, on undo.
        self._old_map = faiss.IndexIVFFlat(faiss.IndexFlatL2(1), 1, 1)  # only to hold it: DirectMap has no copy
        self._old_map.direct_map = core.direct_map

    def apply(self) -> None:
        """Put them in."""
        self._write_lists()
        self._write_centroids()
        self._write_codebooks()
        self._refresh_tables()
        self._rebuild_direct_map()

    def prepare(self) -> None:
        """Move the new lists into their file.

        Raises:
            RuntimeError: the new lists don't hold as many vectors as the index.
            OSError: the file for the new lists can't be written.
        """
        found = self._core.invlists.compute_ntotal()
        if found != self._core.ntotal:
            raise RuntimeError(f"new lists of {found} vectors, not {self._core.ntotal}")
        if self._file is not None:
            self._move_to_disk(self._file)

    def _move_to_disk(self, file: Path) -> None:
        """Lists in a file of their own, mapped from there, in place of those in memory."""
        memory = self._holder
        room_for_lists(file, self._core)
        file.open("xb").close()
        self._made = file
        try:
            lists: Any = faiss.OnDiskInvertedLists(memory.invlists.nlist, memory.invlists.code_size, str(file))
            lists.merge_from_1(memory.invlists)
        except RuntimeError as error:
            raise OSError(f"can't write {str(file)!r}: {str(error).splitlines()[-1]}") from error
        on_disk = lists_of(self._core.nlist, code_size=self._core.code_size)
        lists.this.disown()
        on_disk.replace_invlists(lists, True)
        self._holder = on_disk
        self._write_lists()
        memory.own_invlists = True  # and frees them

    def keep(self) -> None:
        """Have the old lists freed, unless they are a caller's own."""
        if self._routed is not None:
            self._routed.own_fields, self._core.own_fields = self._owns_quantizer, True
            self._routed.this.disown()
        if self._holder is not None:
            self._holder.invlists = self._old_lists
            self._holder.own_invlists = self._owned

    def _write_lists(self) -> None:
        if self._holder is not None:
            self._holder.own_invlists = False
            self._core.invlists = self._holder.invlists
            self._core.own_invlists = True

    def _undo_lists(self) -> None:
        if self._holder is not None:
            self._core.own_invlists = self._owned
            self._core.invlists = self._old_lists
            self._holder.own_invlists = True

    def _write_centroids(self) -> None:
        if self._quantizer is None:
            return
        source = self._quantizer
        if self._routed is not None:
            self._core.own_fields, self._core.quantizer = False, self._routed
            source = faiss.downcast_index(source.base_index)
        coarse_quantizers.overwrite(self._live_quantizer, source)

    def _refresh_tables(self) -> None:
        # Of centroids and codebooks; 0 would become 1, and cost memory.
        if getattr(self._core, "use_precomputed_table", 0) > 0:
            self._core.precompute_table()

    def _rebuild_direct_map(self) -> None:
        if self._holder is None:
            return
        kind = self._core.direct_map.type
        # By way of none, since setting the type it already has would do nothing.
        self._core.set_direct_map_type(faiss.DirectMap.NoMap)  # type: ignore[attr-defined]
        self._core.set_direct_map_type(kind)

    def undo(self) -> None:
        """Put back the old ones, with an ``nprobe`` that a search may have set for a while."""
        self._undo_lists()
        if self._made is not None:
            self._made.unlink(missing_ok=True)
        if self._routed is not None:
            self._core.quantizer, self._core.own_fields = self._live_quantizer, self._owns_quantizer
        if self._old_quantizer is not None:
            coarse_quantizers.overwrite(self._live_quantizer, self._old_quantizer)
        self._undo_codebooks()
        self._refresh_tables()
        self._core.direct_map = self._old_map.direct_map
        self._core.nprobe = self._nprobe


def room_for_lists(file: Path, core: Any) -> None:
    """Refuse a disk that is too small: faiss maps the file, and the process would end where a page can't be written.

    Raises:
        OSError: it is.
    """
    needed, free = core.ntotal * (core.code_size + 8), shutil.disk_usage(file.parent).free
    if needed > free:
        raise OSError(f"{free} bytes free in {str(file.parent)!r} for inverted lists that need {needed}")


def lists_of(nlist: int, code_size: int) -> Any:
    """An index off to the side that owns ``nlist`` empty lists of codes, and nothing else.

    An index, because it frees lists of any kind; what Python owns of them it frees as what it takes them for.
    """
    holder: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(code_size), code_size, nlist, faiss.ScalarQuantizer.QT_8bit_direct
    )  # of one byte a dimension
    holder.own_fields = False
    return holder


def fill_lists(lists: Any, assignment: Int64, ids: Int64, packed: Packed) -> None:
    """Fill empty inverted lists: lists ``(n,)``, ids ``(n,)`` and packed codes, uint8 ``(n, code_size)``."""
    for number, size in enumerate(np.bincount(assignment, minlength=lists.nlist).tolist()):
        lists.resize(number, size)
    filled = np.zeros(lists.nlist, dtype=np.int64)
    for start in range(0, len(ids), ROWS):
        part = slice(start, start + ROWS)
        order = np.argsort(assignment[part], kind="stable")
        numbers, starts = np.unique(assignment[part][order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(start + order, starts[1:]), strict=True):
            list_ids, list_codes = ids[rows], packed[rows]
            lists.update_entries(
                number, int(filled[number]), len(rows), faiss.swig_ptr(list_ids), faiss.swig_ptr(list_codes)
            )
            filled[number] += len(rows)
