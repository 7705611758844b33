"""Factory strings of small indexes."""

import re

from conftest import tunable

from faiss_distill.index.registry import FAMILIES


def small(example):
    """An example of the registry for 2,000 vectors of 64 dimensions."""
    example = re.sub(r"IVF\d+", "IVF16", example).replace("PQ32x4", "PQ16x4").replace("OPQ16", "OPQ8")
    example = re.sub(r"\bPQ16np$", "PQ8np", example).replace("Q32x4fs", "Q8x4fs").replace("Q8x4x4fs", "Q2x4x4fs")
    return example.replace("4x4x8", "2x2x4").replace("16x8", "4x4")


EXAMPLES = [small(family.example) for family in FAMILIES.values() if family.example]
FACTORIES = [
    "IVF16,PQ16x4",
    "IVF16,PQ8x6np",
    "IVF16,PQ8np",
    "IVF16_HNSW16,PQ8np",
    "IVF16(SQfp16),PQ8np",
    "IVF16(SQ8),PQ8np",
    "IVF16(HNSW16_SQ8),PQ8np",
    "IVF128_NSG16,PQ16x4",
    "IVF16(SQ4,RFlat),PQ16x4",
    "IVF16(IVF4,PQ8x4np,RFlat),PQ16x4",
    "IVF64(RQ2x4),PQ16x4",
    "OPQ8,IVF16,PQ8x4np",
    "PCA32,IVF16,PQ8np",
    "PCAR32,L2norm,IVF16,PQ8np",
    "RR32,IVF16,PQ8np",
    "L2norm,OPQ8_32,IVF16,PQ8x4np",
    "IDMap,IVF16,PQ8np",
    "IDMap2,OPQ8,IVF16,PQ8x4np,RFlat",
    "IVF16,PQ16x4,RFlat",
    "Pad80,IVF16,PQ8np",
    "IVF16,PQ16x4fs",
    "IVF16_HNSW16,PQ16x4fsr",
    "OPQ16,IVF16,PQ16x4fsr",
    "IDMap2,PCA45,IVF16,PQ15x4fsr,RFlat",
    "PQ8np",
    "OPQ16,PQ16x4",
    "IDMap2,PQ4x10np",
    "PQ16x4,RFlat",
    "PQ16x4fs",
    "IDMap2,PCA45,PQ15x4fs,RFlat",
    "RQ4x4",
    "IDMap2,OPQ8,LSQ4x4,RFlat",
    "PRQ2x2x4_Nqint8",
    "PLSQ2x2x4",
    "IVF16,RQ4x4_Nqint8",
    "RQ2x8_Nfloat",
    "IVF16,PRQ2x2x8_Ncqint8",
    "IVF16_HNSW16,LSQ4x4",
    "IDMap2,RR64,IVF16,PRQ2x2x4,RFlat",
    "IVF16,PRQ2x2x6_Nfloat",
    "IVF16,PLSQ2x2x4_Ncqint8",
    "RQ4x4_Nlsq2x4",
    "IVF16,RQ4x4_Nrq2x4",
    "IVF16,RQ8x4fs",
    "IVF16_HNSW16,RQ7x4fsr",
    "IDMap2,RR64,IVF16,PRQ2x4x4fsr,RFlat",
    "IVF16,LSQ8x4fsr",
    "IDMap2,PCA45,RQ7x4fs,RFlat",
    "PRQ2x4x4fs",
    "PLSQ2x4x4fs",
]
"""With codebooks."""
LISTED = [*(example for example in EXAMPLES if "IVF" in example), "IVF32,PQ16x4fs"]
"""With inverted lists: one of each family."""
CONTAINED = [
    "RR32,IVF32,PQ16x4", "PCA32,L2norm,IVF32,SQ8", "IDMap,IVF32,PQ16x4", "IDMap2,RR32,IVF32_HNSW8,PQ16x4,RFlat",
    "IVF32,PQ16x4,Refine(SQ8)", "IVF32_HNSW8,PQ16x4", "IVF32(SQ8),PQ16x4", "IVF32(PCA32,HNSW8),PQ16x4",
]  # fmt: skip
"""Inside of containers, and with other coarse quantizers."""
ALONE = [*(example for example in EXAMPLES if "IVF" not in example), "RR32,PQ16x4,RFlat"]
"""Without lists: one of each family."""

# Parts of random ones.
CONTAINERS = ["", "OPQ8,", "L2norm,", "PCAR32,"]
COARSE = ["IVF8", "IVF8_HNSW8", "IVF8(SQ8)", "IVF8(SQfp16)", ""]
ENCODED = tunable(["Flat", "SQ8", "SQ4", "RaBitQ", "RaBitQfs"])
FINE = ["PQ8x4np", "PQ16x4fs", "PQ8x5np", "RQ2x4", "PRQ2x2x4_Nqint8", "LSQ2x4", "RQ2x4fs", *ENCODED]
REFINED = ["", ",RFlat", ",Refine(SQ8)"]
