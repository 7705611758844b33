"""Make the full Debian set from an archive's package descriptions and a sentence-transformers model.

    pip install 'faiss-distill[embed]'
    python -m benchmarks.make_full_data TRANSLATION --model all-MiniLM-L6-v2 --output DIR

TRANSLATION is the archive's English Translation file of Debian 12 main (``main/i18n/Translation-en``, also as
``.bz2``, ``.xz`` or ``.gz``); on a Debian system apt keeps one under ``/var/lib/apt/lists`` (unpack an ``.lz4``
first). The model is a name or a local folder, as sentence-transformers takes it.

A document is a long description of more than 40 characters, white space collapsed and paragraph marks dropped, kept
once; a query is a distinct synopsis, and its relevant document the description of the first package that bears it.
Documents are cut at 96 tokens; 50,150 of the 60,150 queries are drawn, in random order. The distributed set was
embedded with the model's linear layers quantized to int8; its vectors have a cosine of about 0.95 with those made here.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

QUERIES = 50_150
OPENERS: dict[str, Any] = {".bz2": bz2.open, ".xz": lzma.open, ".gz": gzip.open}


def descriptions(path: Path) -> Iterator[tuple[str, str]]:
    """Synopsis and long description of each package."""
    from debian.deb822 import Deb822

    with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
        for stanza in Deb822.iter_paragraphs(lines, use_apt_pkg=False):
            synopsis, _, body = stanza.get("Description-en", "").partition("\n")
            kept = [line for line in body.splitlines() if line.strip() != "."]
            yield " ".join(synopsis.split()), " ".join(" ".join(kept).split())


def pairs(packages: Iterable[tuple[str, str]]) -> tuple[list[str], list[str], list[int]]:
    """Distinct documents, distinct queries, and the row of each query's relevant document."""
    documents: dict[str, int] = {}
    queries: dict[str, int] = {}
    for synopsis, text in packages:
        if len(text) > 40 and synopsis:
            row = documents.setdefault(text, len(documents))
            queries.setdefault(synopsis, row)
    return list(documents), list(queries), list(queries.values())


def main() -> None:
    """Write ``documents.npy``, ``queries.npy`` and ``relevant.npy``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("translation", type=Path, help="the archive's English Translation file")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="name or folder (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--limit", type=int, help="read only this many packages")
    parser.add_argument("--seed", type=int, default=0, help="seed of the queries' order (default: %(default)s)")
    args = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    packages = list(descriptions(args.translation))[: args.limit]
    documents, queries, relevant = pairs(packages)
    order = np.random.default_rng(args.seed).permutation(len(queries))[:QUERIES]
    model = SentenceTransformer(args.model, device="cpu")
    model.max_seq_length = 96

    def embed(texts: list[str]) -> np.ndarray:
        return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=True), dtype=np.float16)

    args.output.mkdir(parents=True, exist_ok=True)
    np.save(args.output / "documents.npy", embed(documents))
    np.save(args.output / "queries.npy", embed([queries[i] for i in order]))
    np.save(args.output / "relevant.npy", np.array(relevant, dtype=np.int32)[order])
    print(f"{len(documents)} documents, {len(order)} queries written to {args.output}")


if __name__ == "__main__":
    main()
