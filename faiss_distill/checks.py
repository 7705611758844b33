"""Numbers that a user passes, checked and made plain Python ones, which JSON can hold."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import Any

from faiss_distill.errors import InputError

LARGEST = 1e18
"""For what enters float32 arithmetic: its square is still far from overflow, and its inverse from 0."""


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value``, of Python or numpy, as an ``int`` from ``low`` to ``high``.

    Raises:
        InputError: it is another, or no integer at all.
    """
    expected = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        raise InputError(name, expected, repr(value))
    return number


def number(name: str, value: Any, expected: str, low: float, high: float, ends: bool = True, hint: str = "") -> float:
    """``value``, of Python or numpy, as a ``float`` from ``low`` to ``high``.

    Args:
        name: what to call it in errors.
        value: to be checked.
        expected: the range in words.
        low: its lower end.
        high: its upper end.
        ends: whether they belong to it.
        hint: what else to do.

    Raises:
        InputError: it is another, NaN, or no number at all.
    """
    found = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):
        with suppress(OverflowError):  # of an integer of Python's
            found = float(value)
    if not (low <= found <= high if ends else low < found < high):
        raise InputError(name, expected, repr(value), hint)
    return found


def flag(name: str, value: Any) -> bool:
    """``value``, of Python or numpy, as a ``bool``.

    Raises:
        InputError: it is something else, true or not.
    """
    import numpy as np  # which takes a moment, and is not needed to list the options

    if not isinstance(value, bool | np.bool_):
        raise InputError(name, "True or False", repr(value))
    return bool(value)


def size(name: str, value: Any) -> int:
    """A number of bytes, also in words such as ``"4GB"`` or ``"512 MiB"``, as an ``int``.

    Raises:
        InputError: it is something else, or less than one.

    Examples:
        >>> size("max_memory", "1.5 GB"), size("max_memory", "2GiB")
        (1500000000, 2147483648)
    """
    found = value
    if isinstance(value, str):
        words = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", value, re.IGNORECASE)
        if words is None:
            raise InputError(name, "a number of bytes, such as '4GB'", repr(value))
        number, unit, binary = words.groups()
        found = int(Decimal(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
    return integer(name, found, 1, 2**63 - 1)


def did_you_mean(word: Any, known: Iterable[str], like: float = 0.6) -> str:
    """A question after the nearest of the words that are known, for the hint of an error; empty if none is near.

    Args:
        word: what was said.
        known: what could have been meant.
        like: how much alike the two must be, from 0 to 1.

    Examples:
        >>> did_you_mean("lisnet", ["listnet", "kl"])
        'did you mean listnet?'
    """
    near = difflib.get_close_matches(word, known, 1, like) if isinstance(word, str) else []
    return f"did you mean {near[0]}?" if near else ""
