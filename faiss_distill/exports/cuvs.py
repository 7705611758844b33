"""A tuned index as what cuVS builds an IVF-PQ index of without training: https://docs.rapids.ai/api/cuvs/stable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from faiss_distill.errors import UnsupportedIndexError
from faiss_distill.exports.product import open_product
from faiss_distill.state import Float32

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex, PathLike

ALIGNED = 8
"""Floats that rows of cuVS's centers are a multiple of."""


def to_cuvs(index: FaissIndex | PathLike) -> dict[str, Float32]:
    """The arguments of ``cuvs.neighbors.ivf_pq.build_precomputed`` for the centroids and codebooks of an index.

    The index is an ``IndexIVFPQ`` or ``IndexIVFPQFastScan`` with residuals, alone or behind rotations such as OPQ, in
    containers or not. The layout is that of ``cuvs/neighbors/ivf_pq.hpp``, cuVS 26.08, for codebooks per subspace.
    ``numpy.savez`` and ``safetensors.numpy.save_file`` write such a dict as it is.

    cuVS chooses lists and codes by itself when vectors are added, so those that were chosen for the queries are left
    behind. Tune with ``assignment="refreshed"`` and ``encoding="nearest"`` to train for that, and to have it judged.

    Args:
        index: the index, or the path of its file.

    Returns:
        By the name of the argument, float32 arrays, with ``d`` dimensions in ``M`` parts of ``d / M``:

        - ``pq_centers (M, d / M, ksub)``: codewords, ``[:, :, i]`` those with number ``i``;
        - ``centers (nlist, d_ext)``: centroids before the rotation, their squared norms in column ``d``, and zeros up
          to ``d_ext``, the next multiple of 8 above ``d``;
        - ``centers_rot (nlist, d)``: centroids behind the rotation;
        - ``rotation_matrix (d, d)``: ``rotation_matrix @ x`` is what is encoded.

    Raises:
        UnsupportedIndexError: the index is of another kind; its lists are chosen by another metric than its own, or
            by a router; its codes are not of 4 to 8 bits a part, and of whole bytes in all; or it does something else
            to vectors than rotate them.
        InputError: it is untrained, empty, or no index at all.

    Examples::

        arrays = {name: cupy.asarray(array) for name, array in to_cuvs(report.index).items()}
        params = ivf_pq.IndexParams(n_lists=4096, metric="inner_product", pq_dim=16, pq_bits=8)
        on_gpu = ivf_pq.build_precomputed(params, report.index.d, **arrays)  # refers to the arrays: keep them
        on_gpu = ivf_pq.extend(on_gpu, cupy.asarray(embeddings), cupy.arange(len(embeddings)))
    """
    adapter, state, codebooks, rotation = open_product(index)
    splits, ksub, _ = codebooks.shape
    bits, d = ksub.bit_length() - 1, state.d
    got = ""
    if not state.by_residual:
        got = f"{adapter.description}, whose codes are not of residuals"
    elif state.router is not None:
        got = f"{adapter.description}, whose lists are found by a router"
    elif state.coarse_metric is not state.metric:
        got = f"lists by {state.coarse_metric.value} and {state.metric.value} within them"
    elif not 4 <= bits <= 8 or bits * splits % 8:
        got = f"{splits} codes of {bits} bits"
    if got:
        expected = "lists of residuals by one metric, and codes of 4 to 8 bits and whole bytes in all, as in cuVS"
        raise UnsupportedIndexError("index", expected, got, "IVF4096,PQ16 and OPQ16,IVF4096,PQ16 are of this kind")
    if rotation is None:
        rotation = np.eye(d, dtype=np.float32)
    centers = np.zeros((len(state.centroids), (d // ALIGNED + 1) * ALIGNED), dtype=np.float32)
    centers[:, :d] = state.centroids @ rotation.T
    centers[:, d] = (centers[:, :d] ** 2).sum(1)
    return {
        "pq_centers": np.ascontiguousarray(codebooks.transpose(0, 2, 1)),
        "centers": centers,
        "centers_rot": state.centroids,
        "rotation_matrix": np.ascontiguousarray(rotation.T),
    }
