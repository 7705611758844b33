"""The factory string of an index that is there already: what ``faiss.index_factory`` would build the like from."""

from __future__ import annotations

import itertools
from typing import Any

import faiss
from faiss.contrib.factory_tools import get_hnsw_M, reverse_index_factory

from faiss_distill.index.families.additive import quantizer_of
from faiss_distill.index.families.ivf_encoded import rabitq_bits

ADDITIVE = {
    faiss.ResidualQuantizer: "RQ",
    faiss.LocalSearchQuantizer: "LSQ",
    faiss.ProductResidualQuantizer: "PRQ",
    faiss.ProductLocalSearchQuantizer: "PLSQ",
}
NORMS = {
    "ST_LUT_nonorm": "_Nnone", "ST_norm_float": "_Nfloat", "ST_norm_qint8": "_Nqint8", "ST_norm_qint4": "_Nqint4",
    "ST_norm_cqint8": "_Ncqint8", "ST_norm_cqint4": "_Ncqint4", "ST_norm_lsq2x4": "_Nlsq2x4",
    "ST_norm_rq2x4": "_Nrq2x4",
}  # fmt: skip
"""How additive quantizers know norms. What is left, decompression, is the default for L2, and no norms for IP."""


def factory_string(index: Any) -> str | None:
    """The factory string of ``index``, or None if none builds the like.

    faiss's own ``reverse_index_factory`` does what it can; containers, FastScan, additive quantizers and what a file
    has made of an OPQ are done here.
    """
    try:
        return _string(faiss.downcast_index(index))
    except (NotImplementedError, KeyError, AssertionError):
        return None


def _string(index: Any) -> str:
    kind = type(index)
    if isinstance(index, faiss.IndexIDMap):  # the outermost, for the factory
        return f"{'IDMap2' if kind is faiss.IndexIDMap2 else 'IDMap'},{_refined(faiss.downcast_index(index.index))}"
    return _refined(index)


def _refined(index: Any) -> str:
    if isinstance(index, faiss.IndexRefine):
        base = _transformed(faiss.downcast_index(index.base_index))
        if isinstance(index, faiss.IndexRefineFlat):
            return f"{base},RFlat"
        return f"{base},Refine({_string(faiss.downcast_index(index.refine_index))})"
    return _transformed(index)


def _transformed(index: Any) -> str:
    if not isinstance(index, faiss.IndexPreTransform):
        return _core(index)
    core = faiss.downcast_index(index.index)
    chain: Any = index.chain
    steps = [_transform(faiss.downcast_VectorTransform(chain.at(i)), core) for i in range(chain.size())]
    return ",".join([*steps, _core(core)])


def _transform(transform: Any, core: Any) -> str:
    kind = type(transform)
    if kind is faiss.PCAMatrix:
        whitened = {0.0: "", -0.5: "W"}[transform.eigen_power]
        return f"PCA{whitened}{'R' if transform.random_rotation else ''}{transform.d_out}"
    if kind is faiss.RandomRotationMatrix:
        return f"RR{transform.d_out}"
    if kind is faiss.NormalizationTransform and transform.norm == 2:
        return "L2norm"
    if kind is faiss.RemapDimensionsTransform and transform.d_out >= transform.d_in:
        return f"Pad{transform.d_out}"
    if kind is faiss.OPQMatrix or (kind is faiss.LinearTransform and not transform.have_bias):
        # The latter is what a file makes of it, and M, which matters in training alone, is lost.
        segments = transform.M if kind is faiss.OPQMatrix else core.pq.M if hasattr(core, "pq") else 1
        return f"OPQ{segments}{f'_{transform.d_out}' if transform.d_out != transform.d_in else ''}"
    raise NotImplementedError


def _core(index: Any) -> str:
    if isinstance(index, faiss.IndexIDMap | faiss.IndexRefine | faiss.IndexPreTransform):
        raise NotImplementedError  # nested as the factory never does
    if not isinstance(index, faiss.IndexIVF):
        return _codes(index) or reverse_index_factory(index)
    quantizer: Any = faiss.downcast_index(index.quantizer)
    kind = type(quantizer)
    if isinstance(quantizer, faiss.IndexFlat):
        coarse = f"IVF{index.nlist}"
    elif kind is faiss.MultiIndexQuantizer:
        coarse = f"IMI{quantizer.pq.M}x{quantizer.pq.nbits}"
    elif kind is faiss.IndexHNSWFlat:
        coarse = f"IVF{index.nlist}_HNSW{get_hnsw_M(quantizer)}"
    elif kind is faiss.IndexNSGFlat:
        coarse = f"IVF{index.nlist}_NSG{quantizer.nsg.R}"
    elif kind is faiss.IndexHNSWSQ:
        storage = reverse_index_factory(faiss.downcast_index(quantizer.storage))
        coarse = f"IVF{index.nlist}(HNSW{get_hnsw_M(quantizer)}_{storage})"
    else:
        coarse = f"IVF{index.nlist}({_string(quantizer)})"
    codes = _codes(index) or reverse_index_factory(index).rsplit(",", 1)[-1]
    return f"{coarse},{codes}"


def _codes(index: Any) -> str | None:
    """The codes' part of the string; None if faiss's own function knows it."""
    kind = type(index)
    if kind in (faiss.IndexPQFastScan, faiss.IndexIVFPQFastScan):
        return f"PQ{index.pq.M}x{index.pq.nbits}{_blocks(index)}"
    if kind in (faiss.IndexPQ, faiss.IndexIVFPQ):
        plain = not index.do_polysemous_training
        return f"PQ{index.pq.M}{f'x{index.pq.nbits}' if index.pq.nbits != 8 else ''}{'np' if plain else ''}"
    if kind.__name__ in ("IndexIVFRaBitQ", "IndexIVFRaBitQFastScan"):
        fast = "fs" if kind is not faiss.IndexIVFRaBitQ else ""
        return f"RaBitQ{fast}{rabitq_bits(index) if rabitq_bits(index) > 1 else ''}"
    if kind is faiss.IndexIVFScalarQuantizer:  # every one is SQ8 to faiss before 1.15
        codes: str = reverse_index_factory(faiss.IndexScalarQuantizer(index.d, index.sq.qtype))
        return codes
    quantizer = quantizer_of(index)
    if quantizer is None:
        return None
    bits = faiss.vector_to_array(quantizer.nbits).tolist()
    if hasattr(quantizer, "nsplits"):
        sizes = f"{quantizer.nsplits}x{quantizer.M // quantizer.nsplits}x{bits[0]}"
    else:  # runs of codebooks of one size
        starts = [i for i in range(len(bits)) if i == 0 or bits[i] != bits[i - 1]] + [len(bits)]
        sizes = "_".join(f"{b - a}x{bits[a]}" for a, b in itertools.pairwise(starts))
    if kind.__name__.endswith("FastScan"):
        sizes += _blocks(index)
    search = next((name for name in NORMS if getattr(type(quantizer), name) == quantizer.search_type), None)
    usual = "ST_LUT_nonorm" if index.metric_type == faiss.METRIC_INNER_PRODUCT else None
    return f"{ADDITIVE[type(quantizer)]}{sizes}{'' if search == usual or search is None else NORMS[search]}"


def _blocks(index: Any) -> str:
    """What says that codes are in the blocks of FastScan."""
    residual = "r" if isinstance(index, faiss.IndexIVF) and index.by_residual else ""
    return f"fs{residual}{f'_{index.bbs}' if index.bbs != 32 else ''}"
