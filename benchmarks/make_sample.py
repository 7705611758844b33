"""Make the packaged sample from the full Debian set: ``python -m benchmarks.make_sample --data DIR``.

Draws documents at random, then queries whose relevant document is among them: the sample's training, validation and
test queries come from the full set's training, validation and test queries. Stored as int8 with one scale a row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import faiss_distill.data.samples
from faiss_distill.datasets import load_debian_packages

DOCUMENTS = 16_000
QUERIES = {"train": 2_800, "validation": 700, "test": 900}


def quantize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``x (n, d)`` as int8 ``(n, d)`` and float32 scales ``(n,)``, ``x`` nearly their product."""
    scale = np.abs(x).max(axis=1) / 127
    return np.rint(x / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def main() -> None:
    """Write ``debian_packages.npz``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder of the full set")
    parser.add_argument("--output", type=Path, default=Path(faiss_distill.data.samples.__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    full = load_debian_packages(args.data)
    rng = np.random.default_rng(args.seed)
    documents = np.sort(rng.permutation(len(full.documents))[:DOCUMENTS])
    chosen = []
    for split, count in QUERIES.items():
        part = getattr(full, split)
        rows = np.arange(len(full.queries))[part]
        chosen.append(rng.permutation(rows[np.isin(full.relevant[rows], documents)])[:count])
    queries = np.concatenate(chosen)
    codes, scales = zip(quantize(full.documents[documents]), quantize(full.queries[queries]), strict=True)
    np.savez(
        args.output / "debian_packages.npz",
        documents=codes[0],
        documents_scale=scales[0],
        queries=codes[1],
        queries_scale=scales[1],
        relevant=np.searchsorted(documents, full.relevant[queries]).astype(np.int32),
        splits=np.cumsum([len(c) for c in chosen]),
    )


if __name__ == "__main__":
    main()
