"""The containers around an index: transforms, id maps, refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from faiss_distill.errors import InputError, MismatchError, UnsupportedIndexError
from faiss_distill.index.parts.sizes import check_size
from faiss_distill.state import Float32, Int64

TRANSFORMS = (
    faiss.LinearTransform,
    faiss.NormalizationTransform,
    faiss.CenteringTransform,
    faiss.RemapDimensionsTransform,
)
REFINEMENTS = (faiss.IndexRefine, faiss.IndexRefineFlat)


@dataclass(frozen=True)
class Chain:
    """Vector transforms of faiss, see :class:`faiss_distill.state.Transforms`.

    Attributes:
        transforms: of their real classes, in the order in which a query meets them.
    """

    transforms: tuple[Any, ...]

    def __call__(self, x: Float32) -> Float32:
        """``x (n, d_in)`` behind the transforms: float32 ``(n, d)``."""
        for t in self.transforms:
            x = t.apply(x)
        return x

    def __add__(self, other: Chain) -> Chain:
        """These, and then the others."""
        return Chain(self.transforms + other.transforms)

    @property
    def names(self) -> str:
        """Their classes."""
        return ", ".join(type(t).__name__ for t in self.transforms)

    @property
    def steps(self) -> tuple[tuple[Float32, Float32] | None, ...]:
        """The same as arrays: ``x -> x @ A + b`` for ``(A, b)``, and ``x / ||x||`` for None."""
        steps: list[tuple[Float32, Float32] | None] = []
        for t in self.transforms:
            if isinstance(t, faiss.NormalizationTransform):
                steps.append(None)
                continue
            bias = t.apply(np.zeros((1, t.d_in), dtype=np.float32))
            if isinstance(t, faiss.LinearTransform):
                matrix = faiss.vector_to_array(t.A).reshape(t.d_out, t.d_in).T.copy()
            else:  # moves or drops coordinates: zeros and ones, but for rounding
                matrix = np.rint(t.apply(np.eye(t.d_in, dtype=np.float32)) - bias)
            steps.append((matrix, bias))
        return tuple(steps)


@dataclass(frozen=True)
class Wrapped:
    """An index taken out of its containers.

    Attributes:
        outer: the object the user passed.
        core: the innermost index, of its real class.
        transforms: the vector transforms.
        id_map: outer id of each inner id, int64, or None.
        names: classes of the containers, outermost first.
        normalizes: whether the transforms bring vectors to unit norm, so that the exact score is one of unit vectors;
            not so where a refinement outside them re-ranks by the vectors as they came.
        refines: whether a search re-ranks what the codes find.
        refined_by: the index with the vectors as they came, that a refinement re-ranks by, or None.
    """

    outer: Any
    core: Any
    transforms: Chain
    id_map: Int64 | None
    names: tuple[str, ...]
    normalizes: bool
    refines: bool = False
    refined_by: Any = None


def unwrap(index: Any) -> Wrapped:
    """Take ``index`` out of its containers.

    Raises:
        UnsupportedIndexError: a transform that is not supported.
        InputError: a container is not trained, or an id map has more or fewer ids than its index has vectors.
    """
    core: Any = faiss.downcast_index(index)
    transforms: list[Any] = []
    id_map: Int64 | None = None
    names: list[str] = []
    normalizes = refines = False
    refined_by: Any = None
    while True:
        if isinstance(core, faiss.IndexPreTransform):
            vector: Any = core.chain
            chain = [faiss.downcast_VectorTransform(vector.at(i)) for i in range(vector.size())]
            for t in chain:
                _check_transform(t)
            transforms += chain
            if not refines:
                normalizes |= any(isinstance(t, faiss.NormalizationTransform) for t in chain)
            inner = core.index
        elif isinstance(core, faiss.IndexIDMap):  # IndexIDMap2 is one too
            id_map = faiss.vector_to_array(core.id_map)
            if len(id_map) != core.index.ntotal:
                raise InputError(
                    "index",
                    f"as many ids in its {type(core).__name__} as vectors in the index inside",
                    f"{len(id_map)} and {core.index.ntotal}",
                    "rebuild the index",
                )
            inner = core.index
        elif type(core) in REFINEMENTS:
            refines = True
            refined_by = None if transforms else faiss.downcast_index(core.refine_index)
            inner = core.base_index
        else:
            return Wrapped(index, core, Chain(tuple(transforms)), id_map, tuple(names), normalizes, refines, refined_by)
        names.append(type(core).__name__)
        last = transforms[-1].d_out if isinstance(core, faiss.IndexPreTransform) and transforms else core.d
        core = faiss.downcast_index(inner)
        check_size(f"dimensions inside its {names[-1]}", core.d, last)


def _check_transform(transform: Any) -> None:
    name = type(transform).__name__
    if not isinstance(transform, TRANSFORMS):
        known = ", ".join(t.__name__ for t in TRANSFORMS)
        raise UnsupportedIndexError("index", f"transforms of {known}", name)
    if not transform.is_trained:
        raise InputError("index", "a trained index", f"one whose {name} is not", "call index.train")
    if isinstance(transform, faiss.LinearTransform):
        check_size(f"numbers in the matrix of its {name}", transform.A.size(), transform.d_in * transform.d_out)
        check_size(
            f"numbers in the bias of its {name}", transform.b.size(), transform.d_out * bool(transform.have_bias)
        )
    if isinstance(transform, faiss.NormalizationTransform) and transform.norm != 2.0:
        raise UnsupportedIndexError("index", "NormalizationTransform with norm 2", str(transform.norm))


def outer_ids(wrapped: Wrapped, ids: Int64) -> Int64:
    """The ids that a search returns for the ids stored in the core index.

    Raises:
        InputError: an id points past the id map: faiss's ``IndexIDMap.remove_ids`` leaves an IVF index inside so.
    """
    if wrapped.id_map is None:
        return ids
    if len(ids) and (ids.min() < 0 or ids.max() >= len(wrapped.id_map)):
        raise MismatchError(
            "index",
            f"ids below {len(wrapped.id_map)} inside its IndexIDMap",
            f"{ids.max()}: the index returns wrong ids, as after remove_ids on an IndexIDMap around an IVF index",
            "rebuild it",
        )
    return np.ascontiguousarray(wrapped.id_map[ids])
