"""Whether the parts of an index fit each other: faiss does not look, and reads past the end of those that are short."""

from __future__ import annotations

from faiss_distill.errors import InputError


def check_size(what: str, got: int, expected: int) -> None:
    """Refuse an index of which a part has another size than the rest says.

    Raises:
        InputError: it has.
    """
    if got != expected:
        raise InputError(
            "index", f"{expected} {what}", f"{got}: it is damaged", "read it from its file again, or rebuild it"
        )
