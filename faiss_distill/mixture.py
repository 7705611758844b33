"""The notation for candidate sources, such as ``"gt + in_batch + top200:1"``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from faiss_distill.errors import InputError

GRAMMAR = "in_batch, gt, gt:S, topK, topK:S, hardK, hardK:S or randomN, joined by +"
TERM = re.compile(r"(?:(gt)|(top|hard|random)([1-9]\d{0,17}))(?::([1-9]\d{0,17}))?")


@dataclass(frozen=True)
class Source:
    """Where a query's own candidates come from.

    Attributes:
        kind: ``"gt"``: the documents labelled relevant; ``"top"``: the teacher's Top-K; ``"hard"``: the Top-K of the
            index being tuned; ``"random"``: any documents.
        depth: the K of the source, or N for random; 0 for gt.
        sampled: how many of them are drawn at each step; None for all.
    """

    kind: str
    depth: int
    sampled: int | None


@dataclass(frozen=True)
class Mixture:
    """Candidate sources of a query, Distill-VQ's :math:`D_q`.

    Attributes:
        sources: of a query's own candidates.
        in_batch: whether each query is also scored on the candidates of the others in its batch.
    """

    sources: tuple[Source, ...]
    in_batch: bool

    @classmethod
    def parse(cls, text: object) -> Mixture:
        """Read the notation.

        Raises:
            InputError: not in the notation, or without a source.

        Examples:
            >>> Mixture.parse("in_batch + top200:1")
            Mixture(sources=(Source(kind='top', depth=200, sampled=1),), in_batch=True)
        """
        if not isinstance(text, str):
            raise InputError("candidates", GRAMMAR, repr(text))
        terms = "".join(text.split()).split("+")
        sources = []
        for term in terms:
            if term == "in_batch":
                continue
            match = TERM.fullmatch(term)
            if match is None:
                raise InputError("candidates", GRAMMAR, f"{term!r} in {text!r}")
            gt, kind, depth, sampled = match.groups()
            source = Source(gt or kind, int(depth or 0), int(sampled) if sampled else None)
            if sampled and (source.kind == "random" or (depth and int(sampled) > int(depth))):
                raise InputError("candidates", "randomN, or at most K of topK and hardK", repr(term))
            sources.append(source)
        if not sources:
            raise InputError("candidates", "a source beside in_batch, such as top100:10", repr(text))
        return cls(tuple(sources), "in_batch" in terms)

    @property
    def single(self) -> bool:
        """Whether a query has one candidate, and nothing to rank it against."""
        return not self.in_batch and len(self.sources) == 1 and (self.sources[0].sampled or self.sources[0].depth) == 1

    def has(self, kind: str) -> bool:
        """Whether one of the sources is of this kind."""
        return any(source.kind == kind for source in self.sources)

    def depth(self, kind: str) -> int:
        """The deepest of the sources of a kind, 0 if there is none."""
        return max((source.depth for source in self.sources if source.kind == kind), default=0)
