"""``IndexShards`` and ``IndexReplicas``: copies of one trained index, tuned together, all of them or none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.columns import joined, taken
from faiss_distill.errors import DistillError, InputError, UnsupportedIndexError
from faiss_distill.index.adapter import IndexAdapter
from faiss_distill.index.cost import Cost
from faiss_distill.index.parts.containers import Chain, Wrapped
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.search_parameters import reranked
from faiss_distill.index.traits import Traits
from faiss_distill.state import Float32, IndexState, Int64, Packed

SORTED = 8 * 8
"""Bytes a vector while those of several parts are put into one order, and sorted into the parts again."""


class JointAdapter(IndexAdapter):
    """Several indexes of one family, trained once: what the first of them says of parameters holds for all."""

    traits = Traits(lists_in_a_file=False, summary="what changes in each, in all or none")

    def __init__(self, wrapped: Wrapped) -> None:
        """Check the number of vectors first, which faiss does not keep up to date."""
        core = wrapped.core
        if core.count() == 0:
            raise InputError("index", f"an {type(core).__name__} with parts", "none")
        expected = self._total([core.at(i).ntotal for i in range(core.count())])
        if core.ntotal != expected:
            raise InputError(
                "index",
                f"ntotal={expected} as the parts of the {type(core).__name__} hold",
                str(core.ntotal),
                "call its syncWithSubIndexes()",
            )
        super().__init__(wrapped)

    @abstractmethod
    def _total(self, ntotals: list[int]) -> int:
        """Vectors of all."""

    def _check(self) -> None:
        from faiss_distill.index.registry import open_index  # each of them is an index of the registry

        name = type(self.core).__name__
        self._parts: list[IndexAdapter] = []
        for i in range(self.core.count()):
            try:
                part = open_index(self.core.at(i))
            except DistillError as error:
                raise replace(error, expected=f"in part {i} of the {name} {error.expected}") from error
            if part.lists_file is not None:
                raise UnsupportedIndexError(
                    "index", f"parts of an {name} in memory", f"part {i} with its lists on disk", "tune it by itself"
                )
            self._parts.append(part)
        self._first = first = self._parts[0]
        self.codebooks = first.codebooks
        self.traits = replace(first.traits, lists_in_a_file=False, summary=self.traits.summary)
        if len({int(core.this) for core in self.cores}) < len(self.cores):
            raise InputError("index", f"an {name} of different indexes", "one in several of its parts")
        steps = [array for step in first.transforms.steps for array in (step or ())]
        for i, part in enumerate(self._parts):
            others = [array for step in part.transforms.steps for array in (step or ())]
            same = len(others) == len(steps) and all(map(np.array_equal, steps, others))
            same &= (part.normalizes, part.refines) == (first.normalizes, first.refines)
            self._must(same, "transform or refinement", i)
            for setting, value in _settings(part).items():
                own = _settings(first)[setting]
                if value != own:
                    raise InputError(
                        "index",
                        f"the same {setting} in all parts of an {name}",
                        f"{own:g} in part 0 and {value:g} in part {i}",
                    )
            for what, value in part.trained.items():
                self._must(what in first.trained and first.trained[what] == value, what, i)

    def _must(self, same: bool, what: str, i: int) -> None:
        if not same:
            raise InputError(
                "index",
                f"all parts of an {type(self.core).__name__} to be copies of one trained index",
                f"other {what} in part {i}",
                "tune each by itself",
            )

    @property
    def cores(self) -> list[Any]:
        """The innermost indexes of all parts."""
        return [core for part in self._parts for core in part.cores]

    @property
    def trained(self) -> dict[str, Any]:
        """By name, all that training has made and adding relies on."""
        return self._first.trained

    @abstractmethod
    def _of_part(self, i: int, state: IndexState) -> IndexState:
        """What of a ``state`` of all belongs to one of the parts."""

    @property
    def nlist(self) -> int:
        """Inverted lists of each."""
        return self._first.nlist

    @property
    def nprobe(self) -> int:
        """Lists probed in each."""
        return self._first.nprobe

    @property
    def imbalance(self) -> float:
        """faiss's imbalance factor of the lists, on average."""
        return float(np.mean([part.imbalance for part in self._parts]))

    def quantizer_with(self, centroids: Float32, router: Float32 | None = None) -> tuple[Any, Float32]:
        """A coarse quantizer for each that holds ``centroids (nlist, d)``, and what it keeps of them."""
        return self._first.quantizer_with(centroids, router)

    def write(
        self, state: IndexState, quantizer: Any, lists: bool = True, words: Any = None, file: Path | None = None
    ) -> Transaction:
        """A transaction that puts what belongs to each into each, which checks it."""
        return self._transaction(state, quantizer, self.words(state) if words is None else words, lists, file)

    def _transaction(
        self, state: IndexState, quantizer: Any, words: Any, lists: bool, file: Path | None
    ) -> Transaction:
        parts = [p.write(self._of_part(i, state), quantizer, lists, words, file) for i, p in enumerate(self._parts)]
        return Transaction(change for part in parts for change in part.changes)

    def restrict(self, state: IndexState) -> Transaction:
        """A transaction under which they hold only these of their vectors, for as long as it is not undone."""
        parts = [p.restrict(self._of_part(i, state)) for i, p in enumerate(self._parts)]
        return Transaction(change for part in parts for change in part.changes)

    def decode(self, state: IndexState, rows: Int64) -> Float32:
        """What the codes of the vectors ``rows`` of a ``state`` of this index stand for: float32 ``(len(rows), d)``."""
        return self._first.decode(state, rows)

    def encode_again(self, state: IndexState, rows: Int64, vectors: Float32) -> Float32:
        """What ``vectors (len(rows), d)`` would be stored as in place of the ``rows`` of a ``state``."""
        return self._first.encode_again(state, rows, vectors)

    def encoder(self, quantizer: Any) -> Callable[[Float32, Int64], Packed] | None:
        """What makes the codes of an index without codebooks."""
        return self._first.encoder(quantizer)

    def facts(self) -> dict[str, Any]:
        """What ``faiss-distill inspect`` shows of this family."""
        return {"parts": len(self._parts), **self._first.facts()}

    @property
    def normalizes(self) -> bool:
        """Whether the index compares unit vectors."""
        return self._wrapped.normalizes or (not self._wrapped.refines and self._first.normalizes)

    @property
    def refines(self) -> bool:
        """Whether a search re-ranks what the codes find."""
        return super().refines or self._first.refines

    @property
    def description(self) -> str:
        """The classes from the outside in."""
        return f"{super().description} of {len(self._parts)} > {self._first.description}"

    @property
    def code_size(self) -> int:
        """Bytes of a code."""
        return self._first.code_size

    @property
    def transforms(self) -> Chain:
        """Those around the parts, and then those in each of them."""
        return self._wrapped.transforms + self._first.transforms


def _settings(part: IndexAdapter) -> dict[str, float]:
    """By name, what a search of all parts takes from the first of them."""
    core = part.core
    return {
        "nprobe": part.nprobe,
        "max_codes": getattr(core, "max_codes", 0),
        "k_factor": reranked(part.index, 1000, {}) / 1000,
    }


class ShardsAdapter(JointAdapter):
    """One ``IndexShards``: each part has vectors of its own."""

    def _total(self, ntotals: list[int]) -> int:
        return sum(ntotals)

    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """That of all parts, each of which is searched for every query."""
        inside = self._wrapped.transforms(queries)
        costs = [part.cost(inside, values) for part in self._parts]
        return Cost(sum(c.codes for c in costs), sum(c.in_graph for c in costs))

    def extract(self) -> IndexState:
        """Copy parameters, and the lists and codes of all, into plain arrays; ids are those that a search returns."""
        states = [part.extract() for part in self._parts]
        starts = np.cumsum([0, *(s.n for s in states)]) * bool(self.core.successive_ids)
        ids = joined([p.outer_ids(s.ids) + start for p, s, start in zip(self._parts, states, starts, strict=False)])
        if self.core.successive_ids and len(np.unique(ids)) < len(ids):
            raise InputError(
                "index",
                "distinct ids",
                "some of an IndexShards that occur twice, since its successive_ids adds the number of vectors in "
                "earlier parts to the parts' ids",
                "set successive_ids = False if they have ids of their own, and rebuild parts that vectors were "
                "removed from",
            )
        order = np.argsort(ids, kind="stable")
        self._ids = taken(ids, order)
        self._owners = taken(np.repeat(np.arange(len(states)), [s.n for s in states]), order)
        self._stored = taken(joined([s.ids for s in states]), order)
        return replace(
            states[0],
            assignment=taken(joined([s.assignment for s in states]), order),
            codes=taken(joined([s.codes for s in states]), order),
            ids=self._ids,
        )

    @property
    def copies(self) -> int:
        """Those of a part, its share of a state, and what puts the ids of all into order."""
        return self._first.copies + SORTED + 2 * self.code_size

    def _of_part(self, i: int, state: IndexState) -> IndexState:
        at = np.searchsorted(self._ids, state.ids)
        rows = np.flatnonzero(self._owners[at] == i)
        stored = self._stored[at[rows]]
        order = np.argsort(stored, kind="stable")
        return replace(state.take(rows[order]), ids=stored[order])


class ReplicasAdapter(JointAdapter):
    """One ``IndexReplicas``: all parts are the same."""

    def _total(self, ntotals: list[int]) -> int:
        return ntotals[0]

    def cost(self, queries: Float32, values: Mapping[str, float]) -> Cost:
        """That of one part, since a query is searched for in one."""
        return self._first.cost(self._wrapped.transforms(queries), values)

    def _check(self) -> None:
        super()._check()
        own = self._first.extract()
        for i, part in enumerate(self._parts[1:], 1):
            state = part.extract()
            for name in ("ids", "assignment", "codes"):
                self._must(np.array_equal(getattr(own, name), getattr(state, name)), name, i)
            self._must(np.array_equal(self._first.outer_ids(own.ids), part.outer_ids(state.ids)), "ids", i)

    def extract(self) -> IndexState:
        """Copy the parameters, lists and codes of one into plain arrays."""
        return self._first.extract()

    @property
    def copies(self) -> int:
        """Those of each part."""
        return self._first.copies

    def outer_ids(self, ids: Int64) -> Int64:
        """The ids that a search returns for ids stored in each of them."""
        return super().outer_ids(self._first.outer_ids(ids))

    def _of_part(self, i: int, state: IndexState) -> IndexState:
        return state
