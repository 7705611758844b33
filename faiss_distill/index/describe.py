"""What an index is made of: its factory string, its bytes by part, and whether it can be tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from faiss_distill.errors import DistillError
from faiss_distill.index.concerns import concerns
from faiss_distill.index.factory_strings import factory_string
from faiss_distill.index.parts.coarse_quantizers import router_of
from faiss_distill.index.registry import open_index
from faiss_distill.index.sources import as_index
from faiss_distill.render.content import FACTS, Section
from faiss_distill.render.result import Result

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex, PathLike

METRIC_NAMES = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}
ID = 8
"""Bytes of an id."""


@dataclass(frozen=True, repr=False)
class Description(Result):
    """What :func:`describe` finds.

    Attributes:
        index: classes from the outside in.
        factory: what ``faiss.index_factory`` would build the like from; None if nothing.
        metric: ``"inner_product"``, ``"l2"``, or faiss's number of another.
        d: dimension of the vectors that go in.
        ntotal: vectors stored.
        details: what the family has to say, such as ``nlist`` and the bits of its codes.
        bytes_per_vector: bytes that each vector takes, by part.
        shared_bytes: bytes that do not grow with the vectors, by part.
        can_be_tuned: whether :func:`faiss_distill.distill` takes it.
        what_changes: what tuning changes, or None.
        why_not: why it can't be tuned, or None.
        concerns: what is known to go wrong with it, a sentence each: few vectors, inner product behind a PCA or of
            vectors that are not normalised.
    """

    index: str
    factory: str | None
    metric: str
    d: int
    ntotal: int
    details: dict[str, Any]
    bytes_per_vector: dict[str, float]
    shared_bytes: dict[str, int]
    can_be_tuned: bool
    what_changes: str | None
    why_not: str | None
    concerns: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return round(self.ntotal * sum(self.bytes_per_vector.values())) + sum(self.shared_bytes.values())

    @property
    def verdict(self) -> str:
        """What it is, and whether it can be tuned."""
        whether = "it can be tuned" if self.can_be_tuned else f"it can't be tuned: {self.why_not}"
        return f"{self.index} of {self.ntotal} vectors; {whether}"

    def sections(self) -> tuple[Section, ...]:
        """A table."""
        each = sum(self.bytes_per_vector.values())
        facts: dict[str, Any] = {
            "index": self.index,
            "factory string": self.factory or "none builds the like",
            "metric": self.metric,
            "d": self.d,
            "ntotal": self.ntotal,
            **self.details,
            "bytes per vector": f"{each:.4g}: " + ", ".join(f"{k} {v:.4g}" for k, v in self.bytes_per_vector.items()),
            "shared bytes": ", ".join(f"{k} {v}" for k, v in self.shared_bytes.items()) or "none",
            "total bytes": self.total_bytes,
            "can be tuned": self.can_be_tuned,
            **({"what changes": self.what_changes} if self.can_be_tuned else {"why not": self.why_not}),
        }
        table = Section(columns=FACTS, rows=[*facts.items()])
        return (table, Section("What may go wrong:", items=self.concerns)) if self.concerns else (table,)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings and dicts."""
        return super().to_dict() | {"total_bytes": self.total_bytes}

    @classmethod
    def _written(cls, content: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in content.items() if name != "total_bytes"}


def describe(index: FaissIndex | PathLike) -> Description:
    """What an index is made of, also one that can't be tuned; the index is not touched.

    Args:
        index: any float index of faiss, or the path of a file of one.

    Returns:
        ``print`` it.

    Raises:
        InputError: ``index`` is no index.

    Examples:
        >>> import faiss
        >>> describe(faiss.index_factory(64, "L2norm,IVF16,PQ8x4np,RFlat")).factory
        'L2norm,IVF16,PQ8x4np,RFlat'
    """
    details: dict[str, Any] = {}
    changes = why_not = None
    found: tuple[str, ...] = ()
    opened: Any = as_index(index)
    try:
        adapter = open_index(opened)
        state = adapter.extract()
        ids = adapter.outer_ids(state.ids)
    except DistillError as error:
        if not isinstance(opened, faiss.Index):
            raise
        why_not = _why_not(error)
    else:
        details, changes = adapter.facts(), adapter.traits.changes
        found = tuple(concerns(adapter, state))
        if adapter.nlist > 1:
            lengths = np.bincount(state.assignment, minlength=adapter.nlist)
            details["list lengths"] = (
                f"min {lengths.min()}, median {int(np.median(lengths))}, max {lengths.max()}, "
                f"imbalance {adapter.imbalance:.2f}"
            )
        details["ids"] = f"{ids.min()}..{ids.max()}"
    names, each, shared = parts(faiss.downcast_index(opened))
    return Description(
        index=" > ".join(names),
        factory=factory_string(opened),
        metric=METRIC_NAMES.get(opened.metric_type, f"metric_type {opened.metric_type}"),
        d=opened.d,
        ntotal=opened.ntotal,
        details=details,
        bytes_per_vector=each,
        shared_bytes=shared,
        can_be_tuned=why_not is None,
        what_changes=changes,
        why_not=why_not,
        concerns=found,
    )


def _why_not(error: DistillError) -> str:
    """An error about an index, as a reason that stands beside it."""
    where, refused, _ = error.expected.partition("one that can be tuned")
    reason = f"{where}{error.got}" if refused else f"it is {error.got}; tuning needs {error.expected}"
    return f"{reason}; {error.hint}" if error.hint else reason


def parts(index: Any) -> tuple[list[str], dict[str, float], dict[str, int]]:
    """Classes from the outside in, bytes that each vector takes, and shared bytes."""
    name = type(index).__name__
    each: dict[str, float]
    shared: dict[str, int]
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        transforms = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
        names, each, shared = parts(faiss.downcast_index(index.index))
        matrices = sum(4 * (t.d_in * t.d_out + t.b.size()) for t in transforms if isinstance(t, faiss.LinearTransform))
        own = f"{name}({', '.join(type(t).__name__ for t in transforms)})"
        return [own, *names], each, ({"transforms": matrices} if matrices else {}) | shared
    if isinstance(index, faiss.IndexIDMap):
        names, each, shared = parts(faiss.downcast_index(index.index))
        return [name, *names], each | {"id map": ID}, shared
    if isinstance(index, faiss.IndexRefine):
        names, each, shared = parts(faiss.downcast_index(index.base_index))
        return [name, *names], each | {"refinement": index.refine_index.sa_code_size()}, shared
    if isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        whole: Any = index
        names, each, shared = parts(faiss.downcast_index(whole.at(0)))
        times = whole.count() if isinstance(index, faiss.IndexReplicas) else 1
        each = {k: times * v for k, v in each.items()}
        return [f"{name} of {whole.count()}", *names], each, {k: whole.count() * v for k, v in shared.items()}
    if isinstance(index, faiss.IndexHNSW):
        _, each, shared = parts(faiss.downcast_index(index.storage))
        return [name], each | {"graph": _graph(index)}, shared
    each = {}
    shared = {}
    if hasattr(index, "code_size"):
        each["codes"] = index.code_size
    if isinstance(index, faiss.IndexIVF):
        each["ids"] = ID
        quantizer = faiss.downcast_index(index.quantizer)
        _, of_each, below = parts(quantizer)
        shared["coarse quantizer"] = round(index.nlist * sum(of_each.values())) + sum(below.values())
        if router_of(quantizer) is not None:
            shared["router"] = 4 * index.nlist * index.d
            shared["coarse quantizer"] -= shared["router"]
        if isinstance(quantizer, faiss.MultiIndexQuantizer):
            shared["coarse quantizer"] = 4 * quantizer.pq.centroids.size()
    shared |= {"codebooks": books} if (books := _codebooks(index)) else {}
    return [name], each, shared


def _graph(index: Any) -> float:
    """Bytes of links that each vector takes."""
    hnsw = index.hnsw
    if index.ntotal == 0:  # 2M links on level 0, and M on each further one, where one in M goes on
        on_level_0 = hnsw.nb_neighbors(0)
        return float(4 * (on_level_0 + on_level_0 / 2 / (on_level_0 / 2 - 1)) + 8 + 4)
    links = int(4 * hnsw.neighbors.size() + 8 * hnsw.offsets.size() + 4 * hnsw.levels.size())
    return links / int(index.ntotal)


def _codebooks(index: Any) -> int:
    """Bytes of codewords."""
    for name in ("pq", "rq", "lsq", "prq", "plsq"):
        if hasattr(index, name):
            quantizer = getattr(index, name)
            copies = 2 if hasattr(quantizer, "nsplits") else 1  # the product forms encode by others than they decode
            return copies * 4 * int((quantizer.centroids if name == "pq" else quantizer.codebooks).size())
    return 0
