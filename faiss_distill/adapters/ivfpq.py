"""``IndexIVFPQ``: arrays out, arrays in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from faiss.contrib.inspect_tools import get_invlist, get_pq_centroids

from faiss_distill.adapters import quantizers
from faiss_distill.adapters.containers import Wrapped, outer_ids
from faiss_distill.adapters.transaction import WriteBack, fill_lists
from faiss_distill.errors import InputError, UnsupportedIndexError
from faiss_distill.state import Float32, Int64, IVFPQState, Metric, Packed, code_dtype

METRICS = {faiss.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT, faiss.METRIC_L2: Metric.L2}


class IVFPQAdapter:
    """One ``IndexIVFPQ``, or one of its kin in a subclass, with the containers around it.

    Attributes:
        index: the outer index, which is what a user searches.
        ivf: the index inside.
        quantizer: its coarse quantizer, of its real class.
        metric: its metric.
    """

    def __init__(self, wrapped: Wrapped) -> None:
        """Check everything that tuning relies on.

        Raises:
            UnsupportedIndexError: the metric, coarse quantizer or storage can't be handled.
            InputError: the index is untrained, empty or inconsistent.
        """
        ivf = wrapped.core
        if not (ivf.is_trained and wrapped.outer.is_trained):
            raise InputError("index: expected a trained index, got an untrained one; call index.train and index.add")
        if ivf.ntotal == 0:
            raise InputError("index: expected a filled index, got an empty one; call index.add first")
        if ivf.metric_type not in METRICS:
            raise UnsupportedIndexError(
                f"index: expected METRIC_INNER_PRODUCT or METRIC_L2, got metric_type {ivf.metric_type}"
            )
        if ivf.quantizer.metric_type not in METRICS:
            raise UnsupportedIndexError(
                f"index: expected a coarse quantizer of METRIC_INNER_PRODUCT or METRIC_L2, got metric_type "
                f"{ivf.quantizer.metric_type}"
            )
        if ivf.nprobe < 1:
            raise InputError(f"index: expected an nprobe of at least 1, got {ivf.nprobe}; set index.nprobe")
        self._check_family(ivf)
        invlists: Any = faiss.downcast_InvertedLists(ivf.invlists)
        if not self._in_memory(invlists):
            raise UnsupportedIndexError(
                f"index: expected inverted lists in memory, got {type(invlists).__name__} that are memory-mapped or "
                f"on disk; read the index without IO_FLAG_MMAP, or merge its lists into memory"
            )
        if invlists.compute_ntotal() != ivf.ntotal:
            raise InputError(
                f"index: expected ntotal={ivf.ntotal} vectors in its lists, got {invlists.compute_ntotal()}; some were "
                f"added with NaN or with no list: rebuild the index without them"
            )
        self.index, self.ivf, self.metric = wrapped.outer, ivf, METRICS[ivf.metric_type]
        self.quantizer = faiss.downcast_index(ivf.quantizer)
        quantizers.check_quantizer(self.quantizer)
        self._wrapped = wrapped

    def _check_family(self, ivf: Any) -> None:
        """Refuse what only this family of indexes can have."""
        if ivf.polysemous_ht != 0:
            raise UnsupportedIndexError(
                f"index: expected polysemous_ht 0, got {ivf.polysemous_ht}; learned codebooks lose the codes' "
                f"bit order that polysemous filtering needs: set polysemous_ht = 0 to tune it"
            )

    def _in_memory(self, invlists: Any) -> bool:
        """Whether all lists are in memory of their own; an IO_FLAG_MMAP_IFC file maps them."""
        in_memory = type(invlists) is faiss.ArrayInvertedLists
        return in_memory and all(invlists.codes.at(i).is_owned for i in range(invlists.nlist))

    def _read_list(self, number: int) -> tuple[Int64, Packed]:
        """Ids ``(n,)`` and bit-packed codes, uint8 ``(n, code_size)``, of one inverted list."""
        ids, codes = get_invlist(self.ivf.invlists, number)
        return ids, codes

    def _hold(self, state: IVFPQState) -> Any:
        """An index off to the side with the codebooks, lists and codes of ``state``."""
        ivf, pq = self.ivf, self.ivf.pq
        holder = faiss.IndexIVFPQ(ivf.quantizer, ivf.d, ivf.nlist, pq.M, pq.nbits, ivf.metric_type)
        holder.own_fields, holder.by_residual, holder.is_trained = False, ivf.by_residual, True
        faiss.copy_array_to_vector(np.ascontiguousarray(state.codebooks).ravel(), holder.pq.centroids)
        fill_lists(holder.invlists, state.assignment, state.ids, pack(state.codes, pq.nbits))
        holder.ntotal = state.n
        return holder

    @property
    def normalizes(self) -> bool:
        """Whether the index compares unit vectors."""
        return self._wrapped.normalizes

    @property
    def refines(self) -> bool:
        """Whether a search re-ranks what the codes find, so that its first 10 depend on how many it asks for."""
        return "IndexRefineFlat" in self._wrapped.names

    @property
    def description(self) -> str:
        """The classes from the outside in, such as ``IndexPreTransform(OPQMatrix) > IndexIVFPQ``."""
        names = list(self._wrapped.names)
        transforms = ", ".join(type(t).__name__ for t in self._wrapped.transforms)
        names = [f"{n}({transforms})" if n == "IndexPreTransform" else n for n in names]
        return " > ".join([*names, type(self.ivf).__name__])

    @property
    def nprobe(self) -> int:
        """Lists probed by a search, at most ``nlist``."""
        return int(min(self.ivf.nprobe, self.ivf.nlist))

    @contextmanager
    def probing(self, nprobe: int) -> Iterator[None]:
        """Search with another ``nprobe`` for a while."""
        own = self.ivf.nprobe
        self.ivf.nprobe = nprobe
        try:
            yield
        finally:
            self.ivf.nprobe = own

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a code, without the id and without what containers store."""
        return int(self.ivf.code_size)

    @property
    def imbalance(self) -> float:
        """faiss's imbalance factor of the lists: 1 if all are of one length, else how much more a search scans."""
        return float(self.ivf.invlists.imbalance_factor())

    def transform(self, x: Float32) -> Float32:
        """``x (n, d_in)`` behind the transforms: float32 ``(n, d)``."""
        return self._wrapped.transform(x)

    @property
    def steps(self) -> tuple[tuple[Float32, Float32] | None, ...]:
        """:meth:`transform` as arrays: ``x -> x @ A + b`` for ``(A, b)``, and ``x / ||x||`` for None."""
        return self._wrapped.steps

    def outer_ids(self, ids: Int64) -> Int64:
        """The ids that a search returns for ids stored in the lists.

        Raises:
            InputError: the ids do not fit the id map, are not distinct, or hold -1.
        """
        out = outer_ids(self._wrapped, ids)
        if (out == -1).any():
            raise InputError(
                "index: expected no vector with the id -1, which faiss returns for nothing found, got one; rebuild the "
                "index without it"
            )
        if len(np.unique(out)) != len(out):
            raise InputError(
                f"index: expected distinct ids, got {len(out) - len(np.unique(out))} that occur twice; a vector "
                f"can't be told from its double: rebuild the index with distinct ids"
            )
        return out

    def extract(self) -> IVFPQState:
        """Copy the index's parameters, lists and codes into plain arrays."""
        ivf, pq = self.ivf, self.ivf.pq
        ids = np.empty(ivf.ntotal, dtype=np.int64)
        packed = np.empty((ivf.ntotal, ivf.code_size), dtype=np.uint8)
        assignment = np.empty(ivf.ntotal, dtype=np.int64)
        start = 0
        for number in range(ivf.nlist):
            list_ids, list_codes = self._read_list(number)
            stop = start + len(list_ids)
            ids[start:stop], packed[start:stop], assignment[start:stop] = list_ids, list_codes, number
            start = stop
        order = np.argsort(ids, kind="stable")
        return IVFPQState(
            metric=self.metric,
            coarse_metric=METRICS[self.quantizer.metric_type],
            by_residual=bool(ivf.by_residual),
            centroids=self.quantizer.reconstruct_n(0, ivf.nlist),
            codebooks=np.array(get_pq_centroids(pq)).reshape(pq.M, pq.ksub, pq.dsub),
            assignment=assignment[order],
            codes=unpack(packed[order], pq.M, pq.nbits),
            ids=ids[order],
        )

    def quantizer_with(self, centroids: Float32) -> Any:
        """A coarse quantizer like the index's own that holds ``centroids (nlist, d)``, off to the side."""
        return quantizers.with_centroids(self.quantizer, centroids)

    def write(self, state: IVFPQState, quantizer: Any, lists: bool = True) -> WriteBack:
        """A transaction that puts ``state`` into the index.

        Args:
            state: of the shapes that :meth:`extract` gives; codes relative to the centroids that ``quantizer``
                reconstructs. With fewer vectors than the index holds it can be searched, but not committed.
            quantizer: from :meth:`quantizer_with`.
            lists: False leaves the inverted lists alone, codes and all, and writes the parameters only.

        Raises:
            InputError: a shape, dtype or code of ``state`` does not fit this index.
        """
        pq = self.ivf.pq
        expected = {
            "centroids": ((self.ivf.nlist, self.ivf.d), np.dtype(np.float32)),
            "codebooks": ((pq.M, pq.ksub, pq.dsub), np.dtype(np.float32)),
            "assignment": ((state.n,), np.dtype(np.int64)),
            "codes": ((state.n, pq.M), np.dtype(code_dtype(pq.ksub))),
            "ids": ((state.n,), np.dtype(np.int64)),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(state, name)
            if array.shape != shape or array.dtype != dtype:
                raise InputError(f"{name}: expected {dtype} {shape}, got {array.dtype} {array.shape}")
        for name, array, top in (("assignment", state.assignment, self.ivf.nlist), ("codes", state.codes, pq.ksub)):
            if int(array.min()) < 0 or int(array.max()) >= top:
                raise InputError(f"{name}: expected values in [0, {top}), got {array.min()} to {array.max()}")
        for name, array in (("centroids", state.centroids), ("codebooks", state.codebooks)):
            if not np.isfinite(array).all():
                raise InputError(f"{name}: expected finite values, got NaN or infinity")
        return WriteBack(self.ivf, quantizer, state.codebooks, self._hold(state) if lists else None)

    def restrict(self, state: IVFPQState) -> WriteBack:
        """A transaction under which the index holds only these of its vectors, for as long as it is not undone."""
        return WriteBack(self.ivf, faiss.clone_index(self.quantizer), state.codebooks, self._hold(state))


def pack(codes: Any, nbits: int) -> Any:
    """faiss's bit packing: codes ``(n, M)`` to uint8 ``(n, code_size)``."""
    if nbits == 8:
        return np.ascontiguousarray(codes, dtype=np.uint8)
    return faiss.pack_bitstrings(np.ascontiguousarray(codes, dtype=np.int32), nbits)


def unpack(packed: Any, n_segments: int, nbits: int) -> Any:
    """Codes ``(n, M)`` of the narrowest dtype from uint8 ``(n, code_size)``."""
    if nbits == 8:
        return packed
    return faiss.unpack_bitstrings(packed, n_segments, nbits).astype(code_dtype(2**nbits))
