"""How long each stage of a run takes, and what it would take with ten times as many vectors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

TENFOLD = 10.0
"""How a stage grows with the corpus that does something with each vector."""


class Stages:
    """A stopwatch for stages that may contain each other: time counts for the innermost.

    Attributes:
        seconds: wall-clock time by stage, in the order in which they began.
        tenfold: the same as it would be with ten times as many vectors and the same queries.
    """

    def __init__(self) -> None:
        """Nothing has run yet."""
        self.seconds: dict[str, float] = {}
        self.tenfold: dict[str, float] = {}
        self._running: list[tuple[str, float]] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str, growth: float = 1.0) -> Iterator[None]:
        """Count what is done inside for stage ``name``, which grows so much with ten times as many vectors."""
        self._count()
        self._running.append((name, growth))
        self.seconds.setdefault(name, 0.0)
        self.tenfold.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def _count(self) -> None:
        """Give the time since the last change to the stage that it was spent in."""
        now = time.perf_counter()
        if self._running:
            name, growth = self._running[-1]
            self.seconds[name] += now - self._since
            self.tenfold[name] += growth * (now - self._since)
        self._since = now


def covered_tenfold(looked_at: int, n: int) -> float:
    """How the number of documents that are looked at grows, if queries draw as many of ten times the corpus at random.

    Of ``n`` documents :math:`n (1 - e^{-D/n})` are drawn at least once in :math:`D` draws.

    Examples:
        >>> round(covered_tenfold(10, 1_000_000), 2)  # so few that none is drawn twice: as many
        1.0
        >>> covered_tenfold(1000, 1000)  # all of them
        10.0
    """
    share = looked_at / n
    return TENFOLD * (1 - (1 - share) ** (1 / TENFOLD)) / share if share else 1.0
