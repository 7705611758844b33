"""What tuning may change of an index."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What tuning may change of the indexes of one family, or of one index.

    Attributes:
        fixed: why coarse centroids can't move, in words; None if they can.
        codebooks: what its codebooks are called; None if it has none.
        lists: whether vectors may change lists.
        codes: which codes become others, in words; None if none do.
        takes_a_sample: whether it can be searched with some of its vectors alone, under their own ids.
        no_router: why it can't be given a router, in words; None if it can, or has one.
        router: whether it has one.
        lists_in_a_file: whether new lists may go to a file, which is then mapped.
        summary: what :attr:`changes` says, where that is not the list of these.
    """

    fixed: str | None = None
    codebooks: str | None = None
    lists: bool = True
    codes: str | None = None
    takes_a_sample: bool = True
    no_router: str | None = "it has no lists"
    router: bool = False
    lists_in_a_file: bool = True
    summary: str | None = None

    @property
    def changes(self) -> str:
        """What tuning changes, in words."""
        if self.summary is not None:
            return self.summary
        centroids = "coarse centroids" if self.fixed is None else None
        lists = "lists of vectors" if self.lists else None
        router = "router" if self.router else None
        return ", ".join(part for part in (centroids, router, self.codebooks, self.codes, lists) if part)
