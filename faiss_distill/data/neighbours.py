"""What somebody else found for each query: documents and their exact scores, from arrays or a ``.npz``."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from faiss_distill.data.alignment import positions
from faiss_distill.data.formats.files import check_file
from faiss_distill.data.ids import as_array, as_ids, examples
from faiss_distill.errors import InputError
from faiss_distill.state import Float32, Int64, Metric

NAMES = ("ids", "scores")
"""Of the arrays in a ``.npz``."""


@dataclass(frozen=True)
class Neighbours:
    """The best documents of each query, as far as they are known.

    Attributes:
        rows: of the corpus, best first, -1 where no more are known, int64 ``(nq, K)``.
        scores: theirs, higher being better, float32 ``(nq, K)``; NaN if they have yet to be computed.
    """

    rows: Int64
    scores: Float32

    @property
    def lack_scores(self) -> bool:
        """Whether only the documents are known."""
        return bool(np.isnan(self.scores).any())

    def scored(self, scores: Float32) -> Neighbours:
        """The same documents with their scores, best first."""
        best = np.argsort(-scores, axis=1, kind="stable")
        return Neighbours(np.take_along_axis(self.rows, best, axis=1), np.take_along_axis(scores, best, axis=1))

    def take(self, which: slice | Int64) -> Neighbours:
        """Those of some of the queries."""
        return Neighbours(self.rows[which], self.scores[which])

    def followed_by_unknown(self, n: int) -> Neighbours:
        """The same, and ``n`` queries more of which nothing is known."""
        width = self.rows.shape[1]
        rows = np.concatenate([self.rows, np.full((n, width), -1, dtype=np.int64)])
        return Neighbours(rows, np.concatenate([self.scores, np.full((n, width), -np.inf, dtype=np.float32)]))


def read_neighbours(path: Path, name: str) -> tuple[Any, Any]:
    """The arrays ``ids`` and ``scores`` of a ``.npz``.

    Raises:
        InputError: it lacks one of them, or is not complete.
    """
    check_file(path, name)
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            missing = [array for array in NAMES if array not in arrays]
            if missing:
                had = f"{str(path)!r} with {', '.join(arrays.files) or 'none'}"
                raise InputError(name, "a .npz of the arrays ids and scores", had)
            return arrays["ids"], arrays["scores"]
    except InputError:
        raise
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(name, "a complete .npz file of numbers", f"{str(path)!r}: {reason}") from error


def open_neighbours(given: Any, n_queries: int, labels: Int64, metric: Metric, depth: int, name: str) -> Neighbours:
    """Check what was found for each of ``n_queries``.

    Args:
        given: ``(ids, scores)``, integers and floats of shape ``(n_queries, K)``, K at least ``depth``, best first, ids
            -1 where there are no more. Scores are as faiss returns them: inner products, or squared L2 distances. An
            array or tensor of ids alone will do.
        n_queries: rows expected.
        labels: ids of the embeddings, in their order, int64 ``(n,)``.
        metric: the index's.
        depth: neighbours wanted.
        name: what to call it in errors.

    Raises:
        InputError: wrong shape or dtype, ids that no embedding has or that occur twice, not finite, or not best first.
    """
    alone = hasattr(given, "shape")
    if not (alone or (isinstance(given, tuple | list) and len(given) == 2)):
        raise InputError(
            name, "(ids, scores), ids alone, the path of a file with these, or a faiss index", type(given).__name__
        )
    ids = as_array(given if alone else given[0], name)
    scores = np.full(ids.shape, np.nan, dtype=np.float32) if alone else as_array(given[1], name)
    if ids.dtype.kind == "f" and scores.dtype.kind in "iu":
        hint = "faiss's search returns them the other way around: D, I = index.search(...); teacher=(I, D)"
        raise InputError(name, "(ids, scores)", "(scores, ids)", hint)
    if scores.dtype.kind != "f":
        raise InputError(name, "floats for scores", f"{scores.dtype} of shape {scores.shape}")
    if ids.ndim != 2 or ids.shape != scores.shape or len(ids) != n_queries:
        expected = f"ids and scores of shape ({n_queries}, K), a row for each query"
        raise InputError(name, expected, f"shapes {ids.shape} and {scores.shape}")
    if ids.shape[1] < depth:
        hint = "pass more, or lower top_k and the depth of candidates"
        raise InputError(name, f"at least {depth} neighbours a query", str(ids.shape[1]), hint)
    ids, scores = as_ids(ids[:, :depth], name), scores[:, :depth].astype(np.float32)
    known = ids != -1
    rows = np.where(known, positions(labels, ids), -1)
    unknown = np.unique(ids[known & (rows < 0)])
    if len(unknown):
        hint = "leave them out, or put -1"
        raise InputError(name, "ids of the embeddings", f"{len(unknown)} others ({examples(unknown)})", hint)
    if not alone and not np.isfinite(scores[known]).all():
        raise InputError(name, "finite scores", f"NaN or infinite for {(~np.isfinite(scores) & known).sum()} ids")
    ordered = np.sort(rows, axis=1)
    doubled = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if doubled.any():
        raise InputError(name, "each id once in a row", f"some twice, in {doubled.sum()} rows")
    scores = np.where(known, scores if metric is Metric.INNER_PRODUCT else -scores, -np.inf).astype(np.float32)
    if alone:
        return Neighbours(rows, scores)
    if (scores[:, 1:] > scores[:, :-1]).any():
        order = "inner products, falling" if metric is Metric.INNER_PRODUCT else "squared L2 distances, rising"
        where = int((scores[:, 1:] > scores[:, :-1]).any(axis=1).sum())
        raise InputError(name, f"scores best first ({order}), -1 at the end", f"others in {where} rows")
    return Neighbours(rows, scores)
