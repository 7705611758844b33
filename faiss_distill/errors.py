"""The exceptions this package raises, all of them a :class:`DistillError`."""

from __future__ import annotations

from dataclasses import astuple, dataclass

BEHIND = "the vectors behind the index"
"""What embeddings should be."""


@dataclass(eq=False)
class DistillError(Exception):
    """Base class: something is wrong with what was passed, and the index is as it was.

    Its text is one sentence, ``{argument}: expected {expected}, got {got}; {hint}``.

    Attributes:
        argument: name of what is wrong.
        expected: what it should be.
        got: what came, or empty.
        hint: what to do, or empty; for a factory string, ends in lines that point at the place.
    """

    argument: str
    expected: str
    got: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        self.args = astuple(self)  # of which pickle and copy make another

    def __str__(self) -> str:
        got = f", got {self.got}" if self.got else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.argument}: expected {self.expected}{got}{hint}"


class InputError(DistillError, ValueError):
    """An argument has the wrong value, shape or dtype."""


class MismatchError(InputError):
    """Embeddings, or their ids, are not those behind the index, or its ids can't be told apart."""


class UnsupportedIndexError(DistillError, TypeError):
    """The index, or a part of it, is of a kind that can't be tuned."""


class MissingDependencyError(DistillError, ImportError):
    """An optional dependency is missing. The hint is the ``pip`` command that installs it."""
