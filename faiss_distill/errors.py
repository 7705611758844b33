"""The exceptions this package raises, all of them a :class:`DistillError`."""

from __future__ import annotations


class DistillError(Exception):
    """Base class: something is wrong with what was passed, and the index is as it was."""


class InputError(DistillError, ValueError):
    """An argument has the wrong value, shape or dtype. The message names it, what was expected and what came."""


class UnsupportedIndexError(DistillError, TypeError):
    """The index, or a part of it, is of a kind that can't be tuned. The message names the class and what to do."""


class MissingDependencyError(DistillError, ImportError):
    """An optional dependency is missing. The message gives the ``pip`` command that installs it."""
