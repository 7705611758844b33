"""What every index family offers: arrays out, arrays in, and a search whose cost is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faiss_distill.columns import ascending
from faiss_distill.errors import InputError, MismatchError, UnsupportedIndexError
from faiss_distill.index.cost import Cost
from faiss_distill.index.parts.codebooks import Codebooks
from faiss_distill.index.parts.containers import Chain, Wrapped, outer_ids
from faiss_distill.index.parts.held import Decoded, vectors_held
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.traits import Traits
from faiss_distill.state import Codes, Float32, IndexState, Int64, Metric, Packed, code_dtype

METRICS = {faiss.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT, faiss.METRIC_L2: Metric.L2}


class IndexAdapter(ABC):
    """An index of one family, with the containers around it.

    Attributes:
        index: the outer index, which is what a user searches.
        core: the index inside, of its real class.
        metric: its metric.
        codebooks: its codebooks, or None if it has none.
    """

    codebooks: Codebooks | None = None
    traits: Traits
    """What tuning may change."""

    def __init__(self, wrapped: Wrapped) -> None:
        """Check everything that tuning relies on.

        Raises:
            UnsupportedIndexError: the metric or a part of the index can't be handled.
            InputError: the index is untrained, empty or inconsistent.
        """
        core = wrapped.core
        if not (core.is_trained and wrapped.outer.is_trained):
            raise InputError("index", "a trained index", "an untrained one", "call index.train and index.add")
        if core.ntotal == 0:
            raise InputError("index", "a filled index", "an empty one", "call index.add first")
        if core.metric_type not in METRICS:
            raise UnsupportedIndexError("index", "METRIC_INNER_PRODUCT or METRIC_L2", f"metric_type {core.metric_type}")
        self.index, self.core, self.metric = wrapped.outer, core, METRICS[core.metric_type]
        self._wrapped = wrapped
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Refuse what this family can't handle."""

    @property
    @abstractmethod
    def nlist(self) -> int:
        """Inverted lists."""

    @property
    @abstractmethod
    def nprobe(self) -> int:
        """Lists probed by a search, at most ``nlist``."""

    @abstractmethod
    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """What a search computes.

        Args:
            queries: as the outer index takes them, float32 ``(nq, d_in)``.
            values: parameters of the search that are not to be the index's own, by faiss's names.
        """

    @property
    @abstractmethod
    def imbalance(self) -> float:
        """faiss's imbalance factor of the lists: 1 if all are of one length, else how much more a search scans."""

    @abstractmethod
    def extract(self) -> IndexState:
        """Copy the index's parameters, lists and codes into plain arrays."""

    @abstractmethod
    def quantizer_with(self, centroids: Float32, router: Float32 | None = None) -> tuple[Any, Float32]:
        """A coarse quantizer that holds ``centroids (nlist, d)``, and what it keeps of them.

        It is like the index's own, but if a ``router (nlist, d)`` is to find the lists: then it holds both.
        """

    @abstractmethod
    def _transaction(
        self, state: IndexState, quantizer: Any, words: Any, lists: bool, file: Path | None
    ) -> Transaction:
        """A transaction that puts a checked ``state`` into the index."""

    def words(self, state: IndexState, norms: Float32 | None = None) -> Any:
        """A quantizer off to the side with the codebooks of ``state``, trained on its codes; None without codebooks.

        Args:
            state: of this index.
            norms: how it is to round norms, from :meth:`norms` of an index of the same training; None to learn it.
        """
        if self.codebooks is None or state.codebooks is None:
            return None
        return self.codebooks.holding(state, norms)

    def norms(self, state: IndexState) -> Float32 | None:
        """How an index that holds ``state`` rounds the norms that it stores; None where it stores none."""
        if self.codebooks is None or state.codebooks is None:
            return None
        return self.codebooks.norms(self.words(state))

    @property
    def decodes(self) -> bool:
        """Whether its codes can be decoded, and made anew."""
        return True

    @property
    def cores(self) -> list[Any]:
        """The innermost indexes: one, but for shards and replicas."""
        return [self.core]

    @property
    def trained(self) -> dict[str, Any]:
        """By name, all that training has made and adding relies on, in a form that can be compared."""
        books = self.codebooks
        words = () if books is None else (books.shape, books.read().tobytes(), *books.trained)
        return {"class": type(self.core).__name__, "metric": self.metric, "codebooks": words}

    def restrict(self, state: IndexState) -> Transaction:
        """A transaction under which the index holds only these of its vectors, for as long as it is not undone."""
        raise NotImplementedError(f"{type(self.core).__name__} can't be searched with some of its vectors alone")

    def decode(self, state: IndexState, rows: Int64) -> Float32:
        """What the codes of the vectors ``rows`` of a ``state`` of this index stand for: float32 ``(len(rows), d)``."""
        return state.reconstruct(rows)

    def encode_again(self, state: IndexState, rows: Int64, vectors: Float32) -> Float32:
        """What ``vectors (len(rows), d)`` would be stored as in place of the ``rows`` of a ``state``, in their lists.

        Returns:
            What their new codes stand for: float32 ``(len(rows), d)``. The same as :meth:`decode` gives, if they are
            the vectors that faiss made the codes of.
        """
        part = state.take(rows)
        codes = self._codes_of(part, np.ascontiguousarray(vectors))
        return self.decode(replace(part, codes=codes), np.arange(part.n))

    def _codes_of(self, state: IndexState, vectors: Float32) -> Codes:
        """The codes, shaped as those of ``state``, that faiss gives to ``vectors (n, d)`` in the lists of ``state``."""
        assert self.codebooks is not None
        return self.codebooks.encode(vectors - state.centroids[state.assignment] if state.by_residual else vectors)

    def encoder(self, quantizer: Any) -> Callable[[Float32, Int64], Packed] | None:
        """What makes the codes of an index without codebooks.

        Args:
            quantizer: from :meth:`quantizer_with`.

        Returns:
            A function from vectors ``(n, d)`` and their lists ``(n,)`` to codes, uint8 ``(n, code_size)``; None if
            codes do not depend on centroids.
        """
        return None

    @property
    def lists_file(self) -> Path | None:
        """The file that the inverted lists are in, if they are not in memory nor mapped to be read only."""
        return None

    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows of this family."""
        return {} if self.codebooks is None else self.codebooks.facts()

    @property
    def normalizes(self) -> bool:
        """Whether the index compares unit vectors."""
        return self._wrapped.normalizes

    @property
    def refines(self) -> bool:
        """Whether a search re-ranks what the codes find, so that its first 10 depend on how many it asks for."""
        return self._wrapped.refines

    @property
    def vectors(self) -> tuple[Float32 | Decoded, Int64] | None:
        """The vectors that the index itself holds to refine by, ``(n, d_in)``, and the id of each; or None.

        See :func:`~faiss_distill.index.parts.held.vectors_held`.
        """
        held = vectors_held(self._wrapped.refined_by)
        return None if held is None else (held, self.outer_ids(np.arange(len(held))))

    @property
    def description(self) -> str:
        """The classes from the outside in, such as ``IndexPreTransform(OPQMatrix) > IndexIVFPQ``."""
        names = list(self._wrapped.names)
        names = [f"{n}({self._wrapped.transforms.names})" if n == "IndexPreTransform" else n for n in names]
        return " > ".join([*names, type(self.core).__name__])

    @property
    def code_size(self) -> int:
        """Bytes of a code, without the id and without what containers store."""
        return int(self.core.code_size)

    @property
    @abstractmethod
    def copies(self) -> int:
        """Bytes a vector of what can't be mapped: copies of lists and codes while it is read or its new form made."""

    @property
    def transforms(self) -> Chain:
        """What the index does to vectors before it compares them."""
        return self._wrapped.transforms

    def outer_ids(self, ids: Int64) -> Int64:
        """The ids that a search returns for ids stored in the lists.

        Raises:
            InputError: the ids do not fit the id map, are not distinct, or hold -1.
        """
        out = outer_ids(self._wrapped, ids)
        if (out == -1).any():
            raise InputError(
                "index",
                "no vector with the id -1, which faiss returns for nothing found",
                "one",
                "rebuild the index without it",
            )
        if not ascending(out) and len(np.unique(out)) != len(out):
            raise MismatchError(
                "index",
                "distinct ids",
                f"{len(out) - len(np.unique(out))} that occur twice",
                "a vector can't be told from its double: rebuild the index with distinct ids",
            )
        return out

    def write(
        self, state: IndexState, quantizer: Any, lists: bool = True, words: Any = None, file: Path | None = None
    ) -> Transaction:
        """A transaction that puts ``state`` into the index.

        Args:
            state: of the shapes that :meth:`extract` gives; codes relative to the centroids that ``quantizer``
                reconstructs. With fewer vectors than an index with lists holds it can be searched, but not committed.
            quantizer: from :meth:`quantizer_with`.
            lists: False leaves the inverted lists alone, codes and all, and writes the parameters only; not so where
                what is stored holds the norms of what it decodes to.
            words: from :meth:`words` of an index with the same codebooks; made of ``state`` if None.
            file: where new lists go when the change is committed, a file that does not exist yet; None for memory.

        Raises:
            InputError: a shape, dtype or code of ``state`` does not fit this index.
        """
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "centroids": ((self.nlist, self.core.d), np.float32),
            "assignment": ((state.n,), np.int64),
            "ids": ((state.n,), np.int64),
        }
        bounded: list[tuple[str, Int64 | Codes, int]] = [("assignment", state.assignment, self.nlist)]
        finite = [("centroids", state.centroids)]
        if self.codebooks is None or state.codebooks is None:
            expected["codes"] = (state.n, self.code_size), np.uint8
        else:
            expected["codebooks"] = self.codebooks.shape, np.float32
            expected["codes"] = (state.n, self.codebooks.n_codes), code_dtype(self.codebooks.ksub)
            bounded.append(("codes", state.codes, self.codebooks.ksub))
            finite.append(("codebooks", state.codebooks))
        for name, (shape, dtype) in expected.items():
            array = getattr(state, name)
            if array.shape != shape or array.dtype != dtype:
                raise InputError(name, f"{np.dtype(dtype)} {shape}", f"{array.dtype} {array.shape}")
        for name, array, top in bounded:
            if len(array) and (int(array.min()) < 0 or int(array.max()) >= top):
                raise InputError(name, f"values in [0, {top})", f"{array.min()} to {array.max()}")
        for name, array in finite:
            if not np.isfinite(array).all():
                raise InputError(name, "finite values", "NaN or infinity")
        norms = self.codebooks is not None and self.codebooks.stores_norms
        return self._transaction(state, quantizer, self.words(state) if words is None else words, lists or norms, file)


class OneListAdapter(IndexAdapter):
    """An index without inverted lists. To the rest of this package it has one, about the origin."""

    @property
    def nlist(self) -> int:
        """One list."""
        return 1

    @property
    def nprobe(self) -> int:
        """One, which is all."""
        return 1

    @property
    def imbalance(self) -> float:
        """1, as there is one list."""
        return 1.0
