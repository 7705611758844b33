"""Progress bars, which exist only where they can be seen.

tqdm takes a lock that forked processes share even for a bar that is disabled. A process that is killed while it holds
the lock leaves the others waiting for good, so where nothing is shown tqdm is not asked at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")


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
    """A bar on the standard error, if it is ``wanted`` and that is a terminal; ``leave`` it there at the end."""
    if not (wanted and sys.stderr is not None and sys.stderr.isatty()):
        yield Unseen()
        return
    with tqdm(total=total, desc=desc, unit=unit, leave=leave) as bar:
        yield bar


def counted(items: Sequence[T], desc: str, unit: str, wanted: bool) -> Iterator[T]:
    """The same items, with a bar that counts them, and goes when they are done."""
    with progress_bar(len(items), desc, unit, wanted, leave=False) as bar:
        for item in items:
            yield item
            bar.update()
