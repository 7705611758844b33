"""Relevance judgements in text: TREC's qrels (MS MARCO's too), four columns, and BEIR's, three with a header line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faiss_distill.data.formats.files import check_file
from faiss_distill.data.ids import is_integer
from faiss_distill.errors import InputError

if TYPE_CHECKING:
    from faiss_distill.typing import PathLike

INTEGER = re.compile(r"-?[0-9]{1,20}")
"""Python's ``int`` would also read ``12_3``, the third passage of document 12, as 123."""


def read_qrels(
    path: PathLike,
    query_ids: Iterable[str | int] | None = None,
    document_ids: Mapping[str, int] | Iterable[str | int] | None = None,
) -> dict[int, dict[int, int]]:
    r"""Judgements as the index counts them: ``{query row: {document id: grade}}``, to pass as ``relevant=``.

    Reads TREC's format (query, iteration, document, grade; between tabs or spaces; no header) and BEIR's (query-id,
    corpus-id, score; between tabs; a header), told apart by their columns. The last of repeated lines counts.

    Args:
        path: the file, in UTF-8.
        query_ids: the id of each query row, in order, as the file has it (integers are compared as strings). Lines
            of other queries are skipped, since a file often covers more than one split. None if the file has row
            numbers.
        document_ids: the integer id in the index of each document, as a mapping ``{id in the file: id in the
            index}``, or a sequence where the document with id ``i`` in the index is at position ``i``. None if the
            file has the integers that the index holds.

    Raises:
        InputError: no such file, not of one of these formats, or its ids are not those passed.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp(), "test.tsv")
        >>> _ = path.write_text("query-id\tcorpus-id\tscore\nPLAIN-7\tMED-2\t1\nPLAIN-3\tMED-9\t2\n")
        >>> read_qrels(path, query_ids=["PLAIN-3", "PLAIN-7"], document_ids={"MED-2": 500, "MED-9": 501})
        {1: {500: 1}, 0: {501: 2}}
    """
    path = Path(path)
    rows = None if query_ids is None else _numbers(query_ids, "query_ids")
    ids = None if document_ids is None else _numbers(document_ids, "document_ids")
    out: dict[int, dict[int, int]] = {}
    unknown: dict[str, None] = {}  # in the order of the file
    empty = True
    for where, query, document, grade in _lines(path):
        empty = False
        if rows is None:
            row = _integer(
                query, where, "query ids that are row numbers", "pass query_ids= to read_qrels, the id of each row"
            )
        elif query in rows:
            row = rows[query]
        else:
            continue
        if ids is None:
            hint = "pass document_ids= to read_qrels, the integer in the index for each"
            known = _integer(document, where, "document ids that are the integers in the index", hint)
        elif document in ids:
            known = ids[document]
        else:
            unknown[document] = None
            continue
        out.setdefault(row, {})[known] = _integer(grade, where, "an integer grade in the last column")
    if empty:
        raise InputError("qrels", "judgements", f"an empty file {str(path)!r}")
    if unknown:
        raise InputError(
            "qrels",
            "documents that are in document_ids",
            f"{len(unknown)} others ({_examples(unknown)}) in {str(path)!r}",
            "pass document_ids= of the whole corpus",
        )
    if rows is not None and not out:
        raise InputError(
            "qrels",
            f"lines of some of the {len(rows)} query_ids ({_examples(rows)})",
            f"none in {str(path)!r}, only of other queries",
            "check that the ids are those in the file, and the split",
        )
    return out


def _lines(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """For each line: where it is (for errors), query, document and grade."""
    check_file(path, "qrels")
    width = 0
    separator: str | None = None
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"in line {number} of {str(path)!r}"
                first = not width
                if first:
                    separator, width = _format(line, where)
                columns = [column.strip() for column in line.split(separator)]
                if len(columns) != width:
                    raise InputError("qrels", f"{width} columns as in the first line", f"{len(columns)} {where}")
                if not (first and columns[-1].lower() == "score"):  # BEIR's header
                    yield where, columns[0], columns[-2], columns[-1]
    except OSError as error:
        raise InputError("qrels", "a file that can be read", f"{str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError("qrels", "text in UTF-8", f"something else in {str(path)!r}: {error}") from error


def _format(line: str, where: str) -> tuple[str | None, int]:
    """Separator and number of columns; tabs come first, since ids between tabs may hold spaces."""
    for separator in ("\t", None):
        width = len(line.split(separator))
        if width in (3, 4):
            return separator, width
    raise InputError(
        "qrels",
        "4 columns (TREC: query, iteration, document, grade) or 3 (BEIR: query-id, corpus-id, score)",
        f"{width} {where}",
    )


def _numbers(ids: Iterable[Any], name: str) -> dict[str, int]:
    """The number of each id: its position, or what a mapping says."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(name, "a sequence of ids", repr(ids))
    if isinstance(ids, Mapping):
        keys, values = [str(key) for key in ids], list(ids.values())
        if not all(map(is_integer, set(map(type, values)))):
            raise InputError(name, "integers as values of the mapping", repr(values[:5]))
    else:
        keys = [str(key) for key in (ids.tolist() if hasattr(ids, "tolist") else ids)]  # a tensor's items print as such
        values = list(range(len(keys)))
    out = {key: int(value) for key, value in zip(keys, values, strict=True)}
    if len(out) < len(keys):
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        raise InputError(name, "distinct ids", f"{len(repeated)} repeated ({_examples(repeated)})")
    return out


def _integer(text: str, where: str, expected: str, hint: str = "") -> int:
    if INTEGER.fullmatch(text):
        return int(text)
    raise InputError("qrels", expected, f"{text!r} {where}", hint)


def _examples(ids: Iterable[str]) -> str:
    ids = list(ids)
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
