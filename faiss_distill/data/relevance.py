"""Which documents are relevant to which query, in every form that people have it in, made one padded array."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from faiss_distill.data.formats import is_file
from faiss_distill.data.formats.files import check_file
from faiss_distill.data.ids import as_array, as_ids, examples, from_integers, is_integer, read_integers
from faiss_distill.data.qrels import read_qrels
from faiss_distill.errors import InputError
from faiss_distill.state import Int64


def open_relevant(relevant: Any, n_queries: int, labels: Int64, name: str) -> Int64:
    """Relevant ids as int64 ``(n_queries, r)``, in each row distinct and then -1 as padding; ``r >= 1``.

    Args:
        relevant: one of

            - integers ``(n_queries,)`` or ``(n_queries, r)``, -1 where there is none, as an array or tensor; unsigned
              ones as :mod:`faiss_distill.data.ids` has them;
            - a list of what each query has, in one of the forms of the next item;
            - a mapping from query rows to an id, a sequence of ids, or a mapping from ids to grades, of which those
              above 0 are relevant; rows that it lacks have none;
            - a scipy sparse matrix ``(n_queries, ...)`` whose columns are ids; entries above 0 are relevant;
            - a path to integers in one of the :data:`~faiss_distill.data.formats.FORMATS`, such as the truth of a
              benchmark, or to qrels in query rows and ids of the index (see
              :func:`faiss_distill.data.qrels.read_qrels` for others).
        n_queries: rows expected.
        labels: ids that the index holds, int64 ``(n,)``.
        name: what to call it in errors.

    Raises:
        InputError: wrong shape or dtype, queries that are not there, ids that the index does not hold, or no
            relevant one at all.
    """
    if isinstance(relevant, str | Path):
        relevant = _read(Path(relevant), name)
    if isinstance(relevant, Mapping):
        out = _from_mapping(relevant, n_queries, name)
    elif _is_sparse(relevant):
        out = _from_sparse(relevant, n_queries, name)
    elif isinstance(relevant, list | tuple):
        out = _from_lists(relevant, n_queries, name)
    else:
        out = _from_array(relevant, n_queries, name)
    out = _tidied(out)
    given = out[out != -1]
    unknown = np.unique(given[~np.isin(given, labels)])
    if len(unknown):
        raise _not_held(name, unknown.tolist())
    if not len(given):
        raise InputError(
            name, "at least one relevant id", f"none for any of the {n_queries} queries", "leave it out to go without"
        )
    return out


def _is_sparse(relevant: Any) -> bool:
    """Whether it is a matrix of scipy's, which has been imported if there is one."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(relevant))


def _read(path: Path, name: str) -> Any:
    """What a file holds: an array, or the mapping of qrels."""
    if is_file(path):
        return read_integers(path, name)
    check_file(path, name)
    try:
        return read_qrels(path)
    except InputError as error:
        raise replace(error, argument=name) from error


def _from_array(relevant: Any, n_queries: int, name: str) -> Int64:
    """Of an array or tensor ``(n_queries,)`` or ``(n_queries, r)``, or an array of lists."""
    array = as_array(relevant, name)
    if array.dtype == object and array.ndim == 1:
        return _from_lists(array.tolist(), n_queries, name)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or len(array) != n_queries:
        raise _misshapen(name, n_queries, f"{array.dtype} of shape {array.shape}", array.dtype.kind in "SU")
    return as_ids(array[:, None] if array.ndim == 1 else array, name)


def _from_lists(relevant: Sequence[Any], n_queries: int, name: str) -> Int64:
    """Of a list with the ids of each query."""
    if len(relevant) != n_queries:
        raise _misshapen(name, n_queries, f"a {type(relevant).__name__} of {len(relevant)}")
    return _from_values(np.arange(n_queries), relevant, n_queries, name)


def _from_mapping(relevant: Mapping[Any, Any], n_queries: int, name: str) -> Int64:
    """Of a mapping from query rows to ids, or to grades of ids."""
    keys = list(relevant)
    bad = [key for key in keys if not is_integer(type(key)) or not 0 <= key < n_queries]
    if bad:
        raise InputError(
            name,
            f"query rows 0..{n_queries - 1}",
            f"{len(bad)} others ({examples(list(map(repr, bad)))})",
            "if these are ids of queries, read the file with read_qrels(path, query_ids=...), which turns them "
            "into rows",
        )
    return _from_values(np.array(keys, dtype=np.int64), relevant.values(), n_queries, name)


def _from_sparse(relevant: Any, n_queries: int, name: str) -> Int64:
    """Of a sparse matrix with a column for each id."""
    if relevant.ndim != 2 or relevant.shape[0] != n_queries or relevant.dtype.kind not in "biuf":
        got = f"{relevant.dtype} of shape {relevant.shape}"
        raise InputError(name, f"a sparse matrix of {n_queries} rows, one a query", got)
    matrix = relevant.tocoo(copy=True)
    matrix.sum_duplicates()
    positive = matrix.data > 0
    return _padded(matrix.row[positive].astype(np.int64), matrix.col[positive].astype(np.int64), n_queries)


def _from_values(rows: Int64, values: Iterable[Any], n_queries: int, name: str) -> Int64:
    """Of what each of ``rows`` has: an id, some ids, or grades of ids."""
    found = [_ids(value, name) for value in values]
    ids = list(chain.from_iterable(found))
    wrong = [kind for kind in set(map(type, ids)) if not is_integer(kind)]
    if wrong:
        got = f"ids of type {', '.join(sorted(kind.__name__ for kind in wrong))}"
        raise _misshapen(name, n_queries, got, any(issubclass(kind, str | bytes) for kind in wrong))
    counts = np.array(list(map(len, found)), dtype=np.int64)
    return _padded(np.repeat(rows, counts), from_integers(ids, name), n_queries)


def _ids(value: Any, name: str) -> list[Any]:
    """The ids that one query has, which may still be anything."""
    if hasattr(value, "tolist"):  # arrays, tensors, their items
        value = value.tolist()
    if isinstance(value, Mapping):
        try:
            ids = [i for i, grade in value.items() if grade > 0]
        except (TypeError, ValueError) as error:
            raise InputError(name, "numbers as grades of ids", repr(value)) from error
        if -1 in ids:
            raise _not_held(name, [-1])  # it was judged, so it is no padding
        return ids
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]


def _padded(rows: Int64, ids: Int64, n_queries: int) -> Int64:
    """The array in which row ``rows[i]`` has ``ids[i]``, in the order given."""
    order = np.argsort(rows, kind="stable")
    rows, ids = rows[order], ids[order]
    counts = np.bincount(rows, minlength=n_queries)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.full((n_queries, counts.max(initial=1)), -1, dtype=np.int64)
    out[rows, slots] = ids
    return out


def _tidied(ids: Int64) -> Int64:
    """Each row without repetitions, in the order it was, then the padding, which is no wider than needed."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    out = np.where(repeated, -1, ids)
    padding = out == -1
    out = np.take_along_axis(out, np.argsort(padding, axis=1, kind="stable"), axis=1)
    return np.ascontiguousarray(out[:, : (~padding).sum(axis=1).max(initial=1)])


def _misshapen(name: str, n_queries: int, got: str, strings: bool = False) -> InputError:
    hint = "turn them into the ids of the index first, as read_qrels(path, document_ids=...) does" if strings else ""
    return InputError(name, f"integers ({n_queries},) or ({n_queries}, r), one row a query", got, hint)


def _not_held(name: str, ids: Sequence[int]) -> InputError:
    return InputError(
        name, "ids that the index holds", f"{len(ids)} others ({examples(ids)})", "leave them out, or put -1"
    )
