"""What is wrong with a factory string that faiss does not take: the token, and what may have been meant."""

from __future__ import annotations

import difflib
import re
from typing import Any

import faiss

GRAMMAR_OF_FAISS = (
    "IDMap2; OPQ16, OPQ16_64, PCA64, PCAR64, RR64, L2norm, Pad128; IVF4096, IVF4096_HNSW32, IVF4096(SQ8), IMI2x8; "
    "Flat, PQ16np, PQ16x4fsr, SQ8, RQ8x8, RQ32x4fsr, LSQ8x8, PRQ4x2x8, RaBitQ; RFlat, Refine(SQ8)"
)
"""For people; what it is, faiss decides."""
TAILS = ("", ",Flat", ",IVF1,Flat")
"""One of which makes a whole factory string of any valid beginning."""


def wrong_token(d: int, plain: str, metric: int, error: BaseException) -> tuple[int, int, str, str]:
    """Where the wrong token begins and ends, what came, and what to do.

    Args:
        d: dimension of the vectors.
        plain: a factory string of faiss.
        metric: faiss's constant.
        error: what faiss says of it.
    """
    begin, end = _offending(d, plain, metric)
    indivisible = _indivisible(d, plain, begin, end, metric)
    if indivisible is not None:
        return begin, end, *indivisible
    near = _near(d, plain, begin, end, metric) if "could not parse" in str(error) else ""
    return begin, end, f"{plain!r}: {reason(error)}", near or f"it knows, in this order, {GRAMMAR_OF_FAISS}"


def reason(error: BaseException) -> str:
    """What faiss says, without where in its sources."""
    said = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"^Error in .*? at \S+:\d+: (Error: )?", "", said[-1])


def _offending(d: int, plain: str, metric: int) -> tuple[int, int]:
    """Where the first token is that faiss does not take: the shortest prefix after which nothing can follow.

    faiss says that it can't parse the whole. A token is taken if some index can be made that has it.
    """
    ends = [m.start() for m in re.finditer(r",(?![^(]*\))", plain)] + [len(plain)]
    begin = 0
    for end in ends:
        if not any(_builds(d, plain[:end] + tail, metric) for tail in TAILS):
            break
        begin = min(end + 1, len(plain))
    return (begin, end) if begin < end else (0, len(plain))


def _indivisible(d: int, plain: str, begin: int, end: int, metric: int) -> tuple[str, str] | None:
    """What came, and what to do, if the token splits vectors into segments that do not divide their dimension."""
    token = plain[begin:end]
    match = re.match(r"(PQ|PRQ|PLSQ)(\d+)", token)
    if match is None or not _builds(d, f"{plain[:begin]}Flat", metric):
        return None
    d = _behind(faiss.index_factory(d, f"{plain[:begin]}Flat", metric))
    kind, segments = match[1], int(match[2])
    if segments == 0 or d % segments == 0:
        return None
    divisors = [m for m in range(1, d + 1) if d % m == 0 and segments <= 2 * m <= 4 * segments]
    near = [m for m in divisors if m < segments][-1:] + [m for m in divisors if m > segments][:2]
    tokens = [f"{kind}{m}{token[match.end() :]}" for m in near]
    hint = f"put Pad{-(-d // segments) * segments} before it"
    if tokens:
        hint = f"try {' or '.join(filter(None, [', '.join(tokens[:-1]), tokens[-1]]))}"
    return f"{plain!r}: {segments} does not divide {d}", hint


def _behind(index: Any) -> int:
    """The dimension behind an index's transforms."""
    return _behind(faiss.downcast_index(index.index)) if hasattr(index, "index") else int(index.d)


def _near(d: int, plain: str, begin: int, end: int, metric: int) -> str:
    """What the token may have been meant for, as a question, if faiss can build that."""
    shapes = {_shape(token): token for token in re.split(r"[,;] ", GRAMMAR_OF_FAISS)}
    numbers = re.findall(r"\d+", plain[begin:end])
    for shape in difflib.get_close_matches(_shape(plain[begin:end]), shapes):
        meant = shapes[shape]
        if shape.count("#") == len(numbers):
            meant = re.sub(r"\d+", "{}", meant).format(*numbers)
        if any(_builds(d, f"{plain[:begin]}{meant}{tail}", metric) for tail in TAILS):
            return f"did you mean {meant}?"
    return ""


def _shape(token: str) -> str:
    """A token without its numbers, to be compared."""
    return re.sub(r"\d+", "#", token).lower()


def _builds(d: int, factory: str, metric: int) -> bool:
    try:
        faiss.index_factory(d, factory, metric)
    except (RuntimeError, MemoryError):
        return False
    return True
