"""What all results have in common: a text made of their sections, and JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faiss_distill.files import replacing
from faiss_distill.render.content import Section
from faiss_distill.render.table import as_text


@dataclass(frozen=True)
class Result(ABC):
    """A result, which says what it is shown as; one that can be drawn has a ``picture()`` too."""

    @abstractmethod
    def sections(self) -> tuple[Section, ...]:
        """What a reader is shown."""

    def __str__(self) -> str:
        """The sections as text."""
        return as_text(self.sections())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts."""
        return asdict(self)

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON text."""
        return as_json(self.to_dict())


def as_json(content: Mapping[str, Any], path: str | Path | None = None) -> str:
    """JSON text, also written to ``path`` if one is given."""
    written = json.dumps(content, indent=2)
    if path is not None:
        with replacing(path) as new:
            new.write_text(written + "\n", encoding="utf-8")
    return written
