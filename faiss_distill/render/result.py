"""What all results have in common: a text, JSON and a page, made of their sections and pictures."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faiss_distill.files import replacing
from faiss_distill.render.content import Page, Section
from faiss_distill.render.html import as_html, as_page
from faiss_distill.render.reading import from_json
from faiss_distill.render.table import as_text

if TYPE_CHECKING:
    from typing_extensions import Self

    from faiss_distill.typing import PathLike


@dataclass(frozen=True, repr=False)
class Result(ABC):
    """A result, which says what it is shown as; one that can be drawn has a ``picture()`` too."""

    @abstractmethod
    def sections(self) -> tuple[Section, ...]:
        """What a reader is shown."""

    @property
    @abstractmethod
    def verdict(self) -> str:
        """The whole in a sentence."""

    def page(self) -> Page:
        """The same as a page, with pictures if there are any."""
        return Page(type(self).__name__, self.verdict, self.sections())

    def __str__(self) -> str:
        """The sections as text."""
        return as_text(self.sections())

    def __repr__(self) -> str:
        """The verdict alone, since the whole is long."""
        return f"<{type(self).__name__}: {self.verdict}>"

    def _repr_html_(self) -> str:
        """The sections, which a notebook shows."""
        return "\n".join(map(as_html, self.sections()))

    def to_html(self, path: PathLike | None = None) -> str:
        """A page in HTML with everything in it, also written to ``path`` if one is given.

        Raises:
            InputError: there is no such folder.
            MissingDependencyError: matplotlib is not installed, and there is something to draw.
        """
        return as_page(self.page(), path)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts."""
        return asdict(self)

    def to_json(self, path: PathLike | None = None) -> str:
        """:meth:`to_dict` as JSON text, also written to ``path`` if one is given."""
        return as_json(self.to_dict(), path)

    @classmethod
    def from_json(cls, source: PathLike) -> Self:
        """The result that :meth:`to_json` has written.

        It prints the same, has the same :meth:`to_dict` and can be drawn. What JSON does not hold is missing: see the
        attributes that are not part of :meth:`to_dict`.

        Args:
            source: the text, which begins with ``{``, or the path of a file.

        Raises:
            InputError: there is no such file, or it is not what such a result writes.
        """
        return from_json(cls, source)

    @classmethod
    def _written(cls, content: dict[str, Any]) -> dict[str, Any]:
        """What :meth:`to_dict` gave, by field."""
        return content

    @classmethod
    def _not_written(cls, known: dict[str, Any]) -> dict[str, Any]:
        """The fields that :meth:`to_dict` leaves out, as they are beside those that it has."""
        return {}


def as_json(content: Mapping[str, Any], path: str | Path | None = None) -> str:
    """JSON text, also written to ``path`` if one is given."""
    written = json.dumps(content, indent=2)
    if path is not None:
        with replacing(path) as new:
            new.write_text(written + "\n", encoding="utf-8")
    return written
