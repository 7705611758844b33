"""Results from the JSON that they were written as."""

from __future__ import annotations

import enum
import json
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from faiss_distill.errors import InputError

T = TypeVar("T")
SCALARS: dict[type, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}
"""What JSON may have for each; a float may have been a whole number."""


class _MismatchError(Exception):
    """The content is not what the class writes, and how."""


def from_json(kind: type[T], source: Any) -> T:
    """A result of the class ``kind`` from JSON text, which begins with ``{``, or from the path of a file of it.

    Raises:
        InputError: there is no such file, or it was not written by such a result.
    """
    expected = f"the JSON that {kind.__name__}.to_json writes, or the path of a file of it"
    if not isinstance(source, str | Path):
        raise InputError("source", expected, type(source).__name__)
    text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
    where = "" if text is not None else f"{reprlib.repr(str(source))}, "
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8") if text is None else text)
    except OSError as error:
        raise InputError("source", expected, f"{where}{error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError("source", expected, f"{where}no JSON: {error}") from error
    try:
        result: T = _made(kind, content, "")
    except _MismatchError as wrong:
        hint = "another kind of result, or another version of faiss_distill, may have written it"
        raise InputError("source", expected, f"{where}{wrong}", hint) from wrong
    return result


def _made(kind: Any, value: Any, place: str) -> Any:
    """A value of JSON as one of the type ``kind``."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, UnionType):
        return _one_of(parts, value, place)
    if origin is tuple and isinstance(value, list):
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        if len(kinds) == len(value):
            return tuple(_made(k, v, f"{place}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is dict and isinstance(value, dict):
        return {name: _made(parts[1], v, _in(place, name)) for name, v in value.items()}
    elif is_dataclass(kind) and isinstance(value, dict):
        return _object(kind, value, place)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value in [each.value for each in kind]:
            return kind(value)
    elif type(value) in SCALARS.get(kind, (kind,)):
        return value
    raise _MismatchError(f"{place or 'content'} {reprlib.repr(value)}")


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """Of the first type that takes it; what a null is not is told by the others."""
    if value is None and NoneType in kinds:
        return None
    *others, last = [kind for kind in kinds if kind is not NoneType]
    for kind in others:
        try:
            return _made(kind, value, place)
        except _MismatchError:
            pass
    return _made(last, value, place)


def _object(kind: Any, content: dict[str, Any], place: str) -> Any:
    """A dataclass; a result says itself which fields it was written without."""
    content = getattr(kind, "_written", dict)(content)
    of_field = {field.name: field for field in fields(kind)}
    known = {}
    for name, value in content.items():
        if name not in of_field:
            raise _MismatchError(f"an unknown {_in(place, name)}")
        known[name] = _made(_hint(kind, of_field[name].type), value, _in(place, name))
    known |= getattr(kind, "_not_written", lambda _: {})(known)
    for name, field in of_field.items():
        if name not in known and field.default is MISSING:
            raise _MismatchError(f"no {_in(place, name)}")
    try:
        made = kind(**known)
    except InputError as error:
        raise _MismatchError(f"{place}: {error}") from error
    if hasattr(made, "page"):
        _check_shown(made, place)
    return made


def _check_shown(result: Any, place: str) -> None:
    """Find out by all that a result shows whether its values fit each other."""
    try:
        str(result), repr(result), result.page()
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise _MismatchError(f"{place or 'values'} that can't be shown ({type(error).__name__}: {error})") from error


def _hint(kind: type, hint: Any) -> Any:
    """What an annotation means in the module of its class."""
    names: Mapping[str, Any] = vars(sys.modules[kind.__module__])
    return eval(hint, dict(names)) if isinstance(hint, str) else hint


def _in(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
