"""A tuned index as a quantizer of nanopq, which is plain numpy: https://github.com/matsui528/nanopq."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faiss_distill.data.formats.extras import imported
from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.exports.product import open_product
from faiss_distill.state import Codes, Int64, Metric

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex, PathLike


def to_nanopq(index: FaissIndex | PathLike) -> tuple[Any, Codes, Int64]:
    """Codebooks, rotation and codes of an index with product codes of the vectors themselves.

    That is an ``IndexPQ``, an ``IndexPQFastScan``, or an ``IndexIVFPQ`` or ``IndexIVFPQFastScan`` whose ``by_residual``
    is false, of which nanopq scans all lists; alone or behind rotations such as OPQ, in containers or not. A refinement
    is left out.

    The codes are those of the index, as tuning has chosen them for the queries. ``quantizer.encode`` finds the nearest
    codewords, as ``index.add`` does.

    Args:
        index: the index, or the path of its file.

    Returns:
        A ``nanopq.PQ``, or a ``nanopq.OPQ`` behind rotations, of the index's metric; the code of each vector, uint8 or
        uint16 ``(n, M)``; and its id, int64 ``(n,)``.

    Raises:
        UnsupportedIndexError: the codes are of another kind, or the index does something else to vectors than rotate
            them.
        InputError: it is untrained, empty, or no index at all.
        MissingDependencyError: nanopq is not installed.

    Examples::

        quantizer, codes, ids = to_nanopq(report.index)
        distances = quantizer.dtable(query).adist(codes)
        ids[distances.argsort()[:10]]  # inner products are better the larger they are: argsort()[::-1][:10]
    """
    adapter, state, codebooks, rotation = open_product(index)
    if state.by_residual:
        raise UnsupportedIndexError(
            "index", "codes of the vectors themselves", f"those of residuals in {adapter.description}",
            "nanopq has no lists to add centroids of: use PQ16, or train IVF4096,PQ16 with by_residual = False",
        )  # fmt: skip
    nanopq = imported("nanopq", "nanopq", "to_nanopq")
    splits, ksub, dsub = codebooks.shape
    kind = nanopq.PQ if rotation is None else nanopq.OPQ
    metric = "l2" if state.metric is Metric.L2 else "dot"
    made = kind(M=splits, Ks=ksub, metric=metric, verbose=False)
    pq = made if rotation is None else made.pq
    pq.codewords, pq.Ds = codebooks, dsub
    if rotation is not None:
        made.R = rotation
    return made, state.codes, adapter.outer_ids(state.ids)
