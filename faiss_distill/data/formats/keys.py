"""Which of several arrays in a file is meant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from faiss_distill.checks import did_you_mean
from faiss_distill.errors import InputError


def chosen(key: str | None, held: Iterable[str], path: Path, name: str, what: str) -> str:
    """``key``, or the only one that is ``held``.

    Args:
        key: what followed the path, or None.
        held: the keys that the file has.
        path: the file.
        name: what to call it in errors.
        what: what a key stands for, in a word.

    Raises:
        InputError: the file does not have it; or it has several, or none, and none was asked for.
    """
    known = list(held)
    if key is None and len(known) == 1:
        return known[0]
    if key is None:
        hint = f"put the one that you mean after the path: {path.name}:{known[0]}" if known else ""
        raise InputError(name, f"a file with one {what}", f"{str(path)!r} with {listed(known)}", hint)
    if key not in known:
        hint = did_you_mean(key, known)
        raise InputError(name, f"one of the {what}s in {str(path)!r}, {listed(known)}", repr(key), hint)
    return key


def listed(keys: list[str]) -> str:
    """The first of some keys, for an error."""
    return ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "") if keys else "none"
