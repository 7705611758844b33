"""Factory strings with one more token, ``Distill``: parsed, and made into an index that is still to be trained.

The rest of a string is faiss's own grammar and goes to ``faiss.index_factory`` as it is.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from faiss_distill.building.factory_hints import wrong_token
from faiss_distill.checks import did_you_mean, integer
from faiss_distill.config import DistillConfig
from faiss_distill.errors import InputError
from faiss_distill.losses import LOSSES
from faiss_distill.mixture import GRAMMAR, TERM

if TYPE_CHECKING:
    from faiss_distill.typing import FaissIndex

TOKEN = re.compile(r"(?:(?P<faiss>.*),)?(?P<token>Distill(?:\((?P<options>.*)\))?)")
MAX_D = 2**20
"""Dimensions, at most: far beyond any embedding, and short of what memory faiss's tables of it would take."""
WORDS = {"True": True, "False": False, "None": None}


def parse(factory: str) -> tuple[str, DistillConfig | None]:
    """Split a factory string into faiss's part and the options of its ``Distill`` token.

    Args:
        factory: such as ``"OPQ16,IVF4096,PQ16np,Distill"`` or ``"...,Distill(kl, in_batch + top200:20, epochs=5)"``: a
            loss, candidates, and single options of :class:`faiss_distill.DistillConfig`, in any order.

    Returns:
        The string for ``faiss.index_factory``, and the options; None without the token.

    Raises:
        InputError: a part of the token is not known. The message points at it and lists what is valid.

    Examples:
        >>> parse("OPQ16,IVF4096,PQ16np,Distill(kl,epochs=5)")[0]
        'OPQ16,IVF4096,PQ16np'
    """
    if not isinstance(factory, str):
        raise InputError("factory", "a string", type(factory).__name__)
    match = TOKEN.fullmatch(factory.strip())
    if match is None:
        at = factory.find("Distill")
        if at >= 0:
            raise _wrong(factory, at, len(factory), "Distill or Distill(options) as the last token")
        return factory, None
    if not match["faiss"]:
        raise _wrong(
            factory, 0, len(factory), "a factory string of faiss before it, such as OPQ16,IVF4096,PQ16np,Distill"
        )
    options: dict[str, Any] = {}
    start = match.start("options")
    for part in (match["options"] or "").split(",") if match["options"] else []:
        text = part.strip()
        begin = start + len(part) - len(part.lstrip())
        start += len(part) + 1
        name, value = _option(factory, begin, text)
        if name in options:
            raise _wrong(factory, begin, begin + len(text), f"{name} once")
        options[name] = value
    try:
        return match["faiss"], DistillConfig(**options)
    except InputError as error:
        name = error.argument
        at = factory.find(f"{name}=", match.start("options"))
        begin, end = (at, at + len(name)) if at >= 0 else match.span("token")
        hint = f"{error.hint or 'see'}\n{_pointer(factory, begin, end)}"
        raise replace(error, argument="factory", expected=f"{name} to be {error.expected}", hint=hint) from error


def _option(factory: str, begin: int, text: str) -> tuple[str, Any]:
    """One of the comma-separated options: its field and value."""
    known = [f.name for f in fields(DistillConfig)]
    name, equals, value = (x.strip() for x in text.partition("="))
    if equals:
        if name not in known:
            hint = did_you_mean(name, known) or f"it has {', '.join(known)}"
            raise _wrong(factory, begin, begin + len(name), "an option of DistillConfig", hint)
        for kind in (int, float):
            try:
                return name, kind(value)
            except ValueError:
                continue
        return name, WORDS.get(value, value)
    if text in LOSSES:
        return "loss", text
    if text and all(term.strip() == "in_batch" or TERM.fullmatch(term.strip()) for term in text.split("+")):
        return "candidates", text
    hint = did_you_mean(text, LOSSES) or "see"
    raise _wrong(
        factory, begin, begin + max(1, len(text)),
        f"a loss ({', '.join(LOSSES)}), candidates ({GRAMMAR}) or name=value", hint,
    )  # fmt: skip


def _pointer(factory: str, begin: int, end: int) -> str:
    return f"{factory}\n{' ' * begin}{'^' * (end - begin)}"


def _wrong(factory: str, begin: int, end: int, expected: str, hint: str = "see") -> InputError:
    return InputError("factory", expected, repr(factory[begin:end]), f"{hint}\n{_pointer(factory, begin, end)}")


def index_factory(d: int, factory: str, metric: int | str = "l2") -> FaissIndex:
    """``faiss.index_factory`` for strings that may end in ``Distill``.

    The options of the token stay with the index object: ``distill(index, embeddings)`` without a ``config`` takes them.
    They are not written to a file.

    Args:
        d: dimension of the vectors.
        factory: see :func:`faiss_distill.building.factory.parse`.
        metric: ``"l2"``, as is faiss's default, or ``"ip"``; or faiss's constant.

    Returns:
        The faiss index, to be trained and filled as any.

    Raises:
        InputError: a token is wrong; the message points at it.

    Examples:
        >>> index = index_factory(64, "IVF256,PQ16x4np,Distill(kl)")
        >>> type(index).__name__
        'IndexIVFPQ'
    """
    plain, config = parse(factory)
    d, metric = integer("d", d, 1, MAX_D), as_metric(metric)
    try:
        index = faiss.index_factory(d, plain, metric)
    except (RuntimeError, MemoryError) as error:
        begin, end, got, hint = wrong_token(d, plain, metric, error)
        hint = f"{hint}\n{_pointer(factory, begin, end)}"
        raise InputError("factory", "one that faiss can build", got, hint) from error
    if config is not None:
        object.__setattr__(index, OPTIONS, config)  # faiss's own setattr refuses what C++ does not have
    return index


OPTIONS = "_distill_config"


METRICS = {
    "ip": faiss.METRIC_INNER_PRODUCT,
    "inner_product": faiss.METRIC_INNER_PRODUCT,
    "l2": faiss.METRIC_L2,
}
"""Names that stand for faiss's constants."""
COSINES = ("cosine", "cos", "angular")


def as_metric(metric: Any) -> int:
    """faiss's constant for a metric, given as such or by one of the names in :data:`METRICS`.

    Raises:
        InputError: it is another; for cosine similarity the message says what to do.
    """
    name = metric.lower() if isinstance(metric, str) else None
    if name in METRICS:
        return METRICS[name]
    if isinstance(metric, int | np.integer) and not isinstance(metric, bool) and metric in METRICS.values():
        return int(metric)
    hint = (
        "for cosine similarity, normalise vectors and queries to length 1 and use 'ip'"
        if name is not None and name.removesuffix("_similarity") in COSINES
        else ""
    )
    raise InputError("metric", "'ip' or 'l2', or faiss.METRIC_INNER_PRODUCT or faiss.METRIC_L2", repr(metric), hint)


def options_of(index: Any) -> DistillConfig | None:
    """The options that :func:`index_factory` has left with an index, or None."""
    return getattr(index, OPTIONS, None)
