"""Progress bars, which exist only where they can be seen; elsewhere each is one line of the log.

They are seen on terminals and in notebooks.

tqdm takes a lock that forked processes share even for a bar that is disabled. A process that is killed while it holds
the lock leaves the others waiting for good, so where nothing is shown tqdm is not asked at all.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Bar(Protocol):
    """What a loop tells of its progress."""

    def update(self, n: int = 1, /) -> Any:
        """That ``n`` more are done."""

    def set_postfix(self, values: Mapping[str, object], /) -> Any:
        """What to show beside the bar."""


class Unseen:
    """A bar that shows nothing."""

    def update(self, n: int = 1, /) -> None:
        """Nothing."""

    def set_postfix(self, values: Mapping[str, object], /) -> None:
        """Nothing."""


@contextmanager
def progress_bar(total: int, desc: str, unit: str, wanted: bool, leave: bool = True) -> Iterator[Bar]:
    """A bar on the standard error, if it is ``wanted`` and seen there; ``leave`` it at the end."""
    if not _seen(wanted):
        if wanted and total:
            logger.info("%s: %d %s", desc, total, unit)
        yield Unseen()
        return
    with _bar(total=total, desc=desc, unit=unit, leave=leave) as bar:
        yield bar


def counted(items: Sequence[T], desc: str, unit: str, wanted: bool) -> Iterator[T]:
    """The same items, with a bar that counts them, and goes when they are done."""
    with progress_bar(len(items), desc, unit, wanted, leave=False) as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def waiting(
    desc: str, estimate: Callable[[], float], told: Callable[[float], str], wanted: bool, every: float = 0.5
) -> Iterator[None]:
    """A bar of the time that one long call takes, which itself tells nothing of its progress.

    Args:
        desc: what is waited for.
        estimate: about how many seconds; only asked if the bar is shown.
        told: such a number in words.
        wanted: as for :func:`progress_bar`.
        every: seconds after which the bar moves on.
    """
    if not _seen(wanted):
        if wanted:
            logger.info("%s", desc)
        yield
        return
    about, start, done = estimate(), time.monotonic(), threading.Event()
    shown = f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {{elapsed}} of about {told(about)}"
    with _bar(total=about, desc=desc, bar_format=shown) as bar:

        def move() -> None:
            while not done.wait(every):
                bar.n = min(time.monotonic() - start, about)
                bar.refresh()

        mover = threading.Thread(target=move, daemon=True)
        mover.start()
        try:
            yield
            bar.n = about
        finally:
            done.set()
            mover.join()


def _seen(wanted: bool) -> bool:
    """Whether a bar is ``wanted``, and the standard error a terminal or the output of a notebook."""
    return wanted and sys.stderr is not None and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """Whether this is a kernel of Jupyter's; ipykernel alone, all that tqdm asks for, may be there elsewhere."""
    return "ipykernel.zmqshell" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _bar(**shown: Any) -> Any:
    """A bar of tqdm's; in a notebook a widget, or where ipywidgets is not installed the same text as on a terminal."""
    if not _in_notebook():
        return tqdm(**shown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is not installed
        from tqdm.auto import tqdm as widget
    return widget(**shown)
