"""What index families with inverted lists have in common: centroids, lists and codes, read and written back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from faiss.contrib.inspect_tools import get_invlist

from faiss_distill.columns import column
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.index.adapter import METRICS, IndexAdapter
from faiss_distill.index.cost import Cost, graph_distances
from faiss_distill.index.parts import coarse_quantizers
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.parts.write_back import IVFWriteBack, fill_lists, lists_of
from faiss_distill.index.search_parameters import of_quantizer, search_parameters
from faiss_distill.state import Float32, IndexState, Int64, Packed, code_dtype


class IVFAdapter(IndexAdapter):
    """One index with inverted lists."""

    def _check(self) -> None:
        ivf = self.core
        if ivf.quantizer.metric_type not in METRICS:
            raise UnsupportedIndexError(
                "index",
                "a coarse quantizer of METRIC_INNER_PRODUCT or METRIC_L2",
                f"metric_type {ivf.quantizer.metric_type}",
            )
        if ivf.nprobe < 1:
            raise InputError("index", "an nprobe of at least 1", str(ivf.nprobe), "set index.nprobe")
        invlists: Any = faiss.downcast_InvertedLists(ivf.invlists)
        if not self._readable(invlists):
            raise UnsupportedIndexError(
                "index",
                "inverted lists in memory, on disk or mapped by IO_FLAG_MMAP",
                f"{type(invlists).__name__} of another kind",
                "read the index without IO_FLAG_MMAP_IFC, or merge its lists into memory",
            )
        check_size("inverted lists", invlists.nlist, ivf.nlist)
        self._check_lists(invlists)
        if invlists.compute_ntotal() != ivf.ntotal:
            raise InputError(
                "index",
                f"ntotal={ivf.ntotal} vectors in its lists",
                str(invlists.compute_ntotal()),
                "some were added with NaN or with no list: rebuild the index without them",
            )
        quantizer, kind = self._quantizer, type(self._quantizer).__name__
        coarse_quantizers.check_quantizer(quantizer, ivf.nlist, ivf.d)
        if not coarse_quantizers.movable(quantizer):
            self.traits = replace(self.traits, fixed=f"the centroids of an {kind} can't move")
        routed = coarse_quantizers.router_of(quantizer) is not None
        self.traits = replace(self.traits, no_router=None if routed else self._no_router(), router=routed)

    def _no_router(self) -> str | None:
        """Why a router can't take the place of the coarse quantizer, in words; None if it can."""
        if type(self._quantizer) not in coarse_quantizers.FLAT:
            return f"its coarse quantizer is an {type(self._quantizer).__name__}, not a flat one"
        if not self._follows_centroids:
            return "its codes are not of residuals, so that its centroids do nothing but find lists"
        return None

    @property
    def _follows_centroids(self) -> bool:
        """Whether codes are relative to the centroid of their list."""
        return bool(self.core.by_residual)

    @property
    def _quantizer(self) -> Any:
        """The coarse quantizer, of its real class."""
        return faiss.downcast_index(self.core.quantizer)

    def _check_lists(self, invlists: Any) -> None:
        """Refuse lists whose codes are not as long as the index says, or as many as their ids."""
        check_size("bytes a code in its lists", invlists.code_size, self.core.code_size)
        if type(invlists) is not faiss.OnDiskInvertedLists:
            for number in range(invlists.nlist):
                wanted = invlists.list_size(number) * invlists.code_size
                check_size(f"bytes of codes in list {number}", invlists.codes.at(number).size(), wanted)

    def _readable(self, invlists: Any) -> bool:
        """Whether the lists are of a kind that can be read, and let go of."""
        if type(invlists) is faiss.OnDiskInvertedLists:
            return True
        in_memory = type(invlists) is faiss.ArrayInvertedLists  # an IO_FLAG_MMAP_IFC file maps them
        return in_memory and all(invlists.codes.at(i).is_owned for i in range(invlists.nlist))

    @property
    def lists_file(self) -> Path | None:
        """The file that the inverted lists are in, if they are not in memory nor mapped to be read only."""
        lists: Any = faiss.downcast_InvertedLists(self.core.invlists)
        on_disk = type(lists) is faiss.OnDiskInvertedLists and not lists.read_only
        return Path(lists.filename) if on_disk else None

    def _read_list(self, number: int) -> tuple[Int64, Packed]:
        """Ids ``(n,)`` and bit-packed codes, uint8 ``(n, code_size)``, of one inverted list."""
        ids, codes = get_invlist(self.core.invlists, number)
        return ids, codes

    def _read_ids(self, number: int) -> Int64:
        """Ids ``(n,)`` of one inverted list, seen where they are."""
        size = self.core.invlists.list_size(number)
        ids: Any = self.core.invlists.get_ids(number)
        return faiss.rev_swig_ptr(ids, size) if size else np.empty(0, dtype=np.int64)

    def _all_ids(self) -> Int64:
        """Ids ``(n,)`` of all lists, ascending."""
        ids, start = column((self.core.ntotal,), np.int64), 0
        for number in range(self.nlist):
            of_list = self._read_ids(number)
            ids[start : start + len(of_list)] = of_list
            start += len(of_list)
        ids.sort()
        return ids

    def extract(self) -> IndexState:
        """Copy the index's parameters, lists and codes into plain arrays."""
        books, n = self.codebooks, self.core.ntotal
        ids, assignment = self._all_ids(), column((n,), np.int64)
        shape, dtype = (self.core.code_size, np.uint8) if books is None else (books.n_codes, code_dtype(books.ksub))
        codes = column((n, shape), dtype)
        successive = int(ids[-1]) - int(ids[0]) == n - 1  # which would not fit int64 for hashes
        for number in range(self.nlist):
            of_list, packed = self._read_list(number)
            rows = of_list - ids[0] if successive else np.searchsorted(ids, of_list)
            assignment[rows] = number
            codes[rows] = packed if books is None else books.unpack(packed)
        return IndexState(
            metric=self.metric,
            coarse_metric=METRICS[self._quantizer.metric_type],
            by_residual=bool(self.core.by_residual),
            centroids=self._quantizer.reconstruct_n(0, self.nlist),
            codebooks=None if books is None else books.read(),
            assignment=assignment,
            codes=codes,
            ids=ids,
            router=coarse_quantizers.router_of(self._quantizer),
        )

    @property
    def copies(self) -> int:
        """The new lists."""
        return self.code_size + 8

    def _hold(self, assignment: Int64, ids: Int64, packed: Packed) -> Any:
        """An index off to the side that owns inverted lists with these codes."""
        holder = lists_of(self.nlist, packed.shape[1])
        fill_lists(holder.invlists, assignment, ids, packed)
        return holder

    @property
    def nlist(self) -> int:
        """Inverted lists."""
        return int(self.core.nlist)

    @property
    def nprobe(self) -> int:
        """Lists probed by a search, at most ``nlist``."""
        return int(min(self.core.nprobe, self.nlist))

    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """The codes in the lists that the coarse quantizer has a search probe, and what finding these takes."""
        inside, coarse = self.transforms(queries), of_quantizer(values)
        nprobe = int(values.get("nprobe", self.nprobe))
        lists = self._quantizer.search(inside, nprobe, params=search_parameters(self._quantizer, coarse))[1]
        sizes = [self.core.invlists.list_size(number) for number in range(self.nlist)]
        scanned = np.array([*sizes, 0])[lists].sum(axis=1)  # the last is that of -1, which is no list
        if self.core.max_codes:
            scanned = scanned.clip(max=self.core.max_codes)
        return Cost(float(scanned.sum()), graph_distances(self._quantizer, inside, coarse))

    @property
    def imbalance(self) -> float:
        """faiss's imbalance factor of the lists: 1 if all are of one length, else how much more a search scans."""
        return float(self.core.invlists.imbalance_factor())

    def quantizer_with(self, centroids: Float32, router: Float32 | None = None) -> tuple[Any, Float32]:
        """A coarse quantizer that holds ``centroids (nlist, d)``, and what it keeps of them.

        It is like the index's own, but if a ``router (nlist, d)`` is to find the lists: then it holds both. None where
        the centroids are fixed.

        Raises:
            InputError: they are fixed, and are to be others.
        """
        if self.traits.fixed is not None:
            own = self._quantizer.reconstruct_n(0, self.nlist)
            if not np.array_equal(centroids, own):
                raise InputError("centroids", f"those of the {type(self._quantizer).__name__}", "others")
            return None, own
        if router is None:
            quantizer = coarse_quantizers.with_centroids(self._quantizer, centroids)
        else:
            quantizer = coarse_quantizers.with_router(self._quantizer, centroids, router)
        return quantizer, quantizer.reconstruct_n(0, self.nlist)

    def _transaction(
        self, state: IndexState, quantizer: Any, words: Any, lists: bool, file: Path | None
    ) -> Transaction:
        packed = state.codes
        if self.codebooks is not None and lists:
            packed = self.codebooks.pack(words, state)
        holder = self._hold(state.assignment, state.ids, packed.astype(np.uint8, copy=False)) if lists else None
        return Transaction([IVFWriteBack(self.core, self.codebooks, words, quantizer, holder, file)])

    def restrict(self, state: IndexState) -> Transaction:
        """A transaction under which the index holds only these of its vectors, for as long as it is not undone."""
        return self._transaction(state, None, None if self.codebooks is None else self.codebooks.copy(), True, None)

    @property
    def trained(self) -> dict[str, Any]:
        """By name, all that training has made and adding relies on."""
        quantizer = faiss.serialize_index(self._quantizer).tobytes()
        return {**super().trained, "coarse quantizer": quantizer, "by_residual": bool(self.core.by_residual)}

    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows of this family."""
        return {
            "coarse quantizer": type(self._quantizer).__name__,
            "nlist": self.nlist,
            "nprobe": self.core.nprobe,
            **super().facts(),
            "by_residual": bool(self.core.by_residual),
        }
