"""Signals held back while something is between two states.

Python calls the handler of a signal between any two bytecodes of its main thread, and what the handler raises
(``KeyboardInterrupt``, a task queue's time limit) ends whatever runs there: also the code that was to undo a change.
"""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], Any]


class Interrupts:
    """Stands in for every signal handler that is written in Python, from :meth:`begin` to :meth:`end`.

    Handlers are called at once while :meth:`deliver_in` is on the stack; signals that come elsewhere wait for the next
    :meth:`deliver_in`, or for the end. Where a signal finds the thread decides, not a flag: that would be set a
    bytecode too early or too late.

    Only the main thread gets signals, so in others there is nothing to stand in for. An exception that another thread
    throws into this one (``PyThreadState_SetAsyncExc``) is no signal and can't be held back.
    """

    def __init__(self) -> None:
        """Nothing is held back yet."""
        self._own: dict[int, Handler] = {}
        self._came: list[tuple[int, FrameType | None]] = []
        self._open: FrameType | None = None
        self._over = False

    def begin(self) -> None:
        """Hold signals back from here on."""
        try:
            for number, own in _handlers().items():
                self._own[number] = own
                signal.signal(number, self._handle)
        except BaseException:  # raised by one of those that are not held back yet
            self.end()
            raise

    def deliver_in(self, body: Callable[[], T]) -> T:
        """Run ``body``, with handlers called as signals come, and first those of signals that waited."""
        self._open = inspect.currentframe()
        while self._came:
            number, frame = self._came.pop(0)
            self._own[number](number, frame)
        return body()

    def end(self) -> None:
        """Give the handlers back and call those of the signals that waited, all of them, in their order."""
        try:
            self._over = True
            self._open = None
            self._restore()
        finally:
            self._restore()  # a handler that raises in the first ends that
            with ExitStack() as stack:
                for number, frame in reversed(self._came):
                    stack.callback(self._own[number], number, frame)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._over or self._is_open(frame):
            self._own[number](number, frame)
        else:
            self._came.append((number, frame))

    def _is_open(self, frame: FrameType | None) -> bool:
        while frame is not None and frame is not self._open:
            frame = frame.f_back
        return frame is not None

    def _restore(self) -> None:
        for number, own in self._own.items():
            if signal.getsignal(number) == self._handle:  # else someone has set another meanwhile
                signal.signal(number, own)


def _handlers() -> dict[int, Handler]:
    """Python's signal handlers by signal; none outside of the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return {number: own for number, own in found.items() if callable(own)}
