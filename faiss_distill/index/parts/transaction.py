"""Changes that are all kept or all undone, whatever is raised in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from faiss_distill.index.parts.interrupts import Interrupts

T = TypeVar("T")


class Change(ABC):
    """Something that can be changed and put back. On construction, what would be overwritten is copied."""

    @abstractmethod
    def apply(self) -> None:
        """Make the change, in any order: a step that fails is followed by :meth:`undo`."""

    @abstractmethod
    def undo(self) -> None:
        """Put back what was there, whichever steps have been taken, also none, or all and :meth:`prepare`."""

    def prepare(self) -> None:  # noqa: B027
        """Do the last that may fail before the change is kept; nothing by default."""

    def keep(self) -> None:  # noqa: B027
        """Let go of what was there; nothing by default."""


class Transaction:
    """Several changes, all kept or all undone.

    Used as a context manager. Entering it applies the changes, so that what they make can be judged; leaving it without
    :meth:`commit`, by an exception or otherwise, undoes them all. What is replaced stays in memory until then. The
    caller must keep other threads from what is changed.

    Inside of it signals wait (see :class:`~faiss_distill.index.parts.interrupts.Interrupts`), but for what runs
    :meth:`interruptibly`. So what a signal handler raises finds all changes undone, or none: where the signal comes
    after :meth:`commit`, it is raised when everything is kept.

    Args:
        changes: none of them applied.

    Attributes:
        changes: those, and what has been joined to them.
    """

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        """Change nothing yet."""
        self.changes = list(changes)
        self._interrupts = Interrupts()
        self._committed = False

    def __enter__(self) -> Transaction:
        """Apply the changes."""
        self._interrupts.begin()
        try:
            for change in self.changes:
                change.apply()
        except BaseException:
            self._close(keep=False)
            raise
        return self

    def join(self, other: Transaction) -> None:
        """Apply the changes of another one, which is not entered itself, and from here on treat them as one's own."""
        self.changes += other.changes
        for change in other.changes:
            change.apply()

    def interruptibly(self, body: Callable[[], T]) -> T:
        """Run ``body`` with signals delivered as they come, and first those that waited."""
        return self._interrupts.deliver_in(body)

    def commit(self) -> None:
        """Keep the changes, unless one can't be, or a signal that has come by now raises something."""
        for change in self.changes:
            change.prepare()
        self.interruptibly(lambda: None)
        self._committed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep the changes if they were committed and nothing was raised, else undo them."""
        self._close(keep=self._committed and kind is None)

    def _close(self, keep: bool) -> None:
        with ExitStack() as stack:  # an error in one does not keep the others from theirs
            stack.callback(self._interrupts.end)
            for change in self.changes:
                stack.callback(change.keep if keep else change.undo)
