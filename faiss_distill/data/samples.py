"""The package's own sample of real embeddings: documents, queries and labels to try things on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from faiss_distill.errors import InputError
from faiss_distill.state import Float32, Int64

if TYPE_CHECKING:
    from faiss_distill.typing import PathLike

FULL_TRAIN, FULL_VALIDATION = 40_150, 5_000


@dataclass(frozen=True)
class RetrievalData:
    """Documents, queries and labels. ``queries[data.test]`` are the test queries.

    Attributes:
        documents: float32 ``(n, d)``, unit norm.
        queries: float32 ``(nq, d)``, unit norm.
        relevant: row of each query's relevant document, int64 ``(nq,)``.
        train: the training queries.
        validation: the queries to choose settings by.
        test: the queries to report on, and to use for nothing else.
    """

    documents: Float32
    queries: Float32
    relevant: Int64
    train: slice
    validation: slice
    test: slice


def load_debian_packages(directory: PathLike | None = None) -> RetrievalData:
    """Debian package descriptions (documents) and synopses (queries), embedded.

    A document is the long description of a Debian 12 package, a query a one-line synopsis, and the document relevant
    to it is its own package's description. Both were embedded with the sentence-transformers model all-MiniLM-L6-v2,
    its linear layers quantized to int8: 384 dimensions, unit norm, so that the inner product is the cosine.

    The packaged sample has 16,000 documents and 4,400 queries (2,800 to train, 700 to validate, 900 to test). It is
    stored as int8 with one scale a row, so its vectors differ from the full set's by about 1 % of their norm; they are
    brought back to unit norm here. ``benchmarks/make_sample.py`` makes it.

    Args:
        directory: folder of the full set (``documents.npy``, ``queries.npy``, ``relevant.npy``; 60,506 documents and
            50,150 queries), as ``benchmarks/make_full_data.py`` makes it. None for the packaged sample.

    Raises:
        InputError: ``directory`` does not hold the full set.

    Examples:
        >>> data = load_debian_packages()
        >>> data.documents.shape, data.queries[data.test].shape
        ((16000, 384), (900, 384))
    """
    if directory is not None:
        return _load_full(Path(directory))
    with np.load(Path(__file__).parent / "debian_packages.npz") as stored:
        documents, queries = (_dequantize(stored[n], stored[f"{n}_scale"]) for n in ("documents", "queries"))
        train, validation, test = stored["splits"].tolist()
        relevant = stored["relevant"].astype(np.int64)
    return RetrievalData(
        documents, queries, relevant, slice(0, train), slice(train, validation), slice(validation, test)
    )


def _dequantize(codes: NDArray[np.int8], scales: Float32) -> Float32:
    x = codes * scales[:, None]
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype=np.float32)


def _load_full(directory: Path) -> RetrievalData:
    try:
        documents, queries = (np.load(directory / f"{n}.npy").astype(np.float32) for n in ("documents", "queries"))
        relevant = np.load(directory / "relevant.npy").astype(np.int64)
    except (OSError, ValueError) as error:
        raise InputError("directory", "documents.npy, queries.npy and relevant.npy in it", str(error)) from error
    held_out = FULL_TRAIN + FULL_VALIDATION
    if len(queries) <= held_out or len(relevant) != len(queries):
        raise InputError("directory", f"more than {held_out} queries with a label each", str(len(queries)))
    return RetrievalData(
        documents, queries, relevant, slice(0, FULL_TRAIN), slice(FULL_TRAIN, held_out), slice(held_out, len(queries))
    )
