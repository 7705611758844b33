"""Libraries that read some of the formats, imported when a file of one is opened."""

from __future__ import annotations

import importlib
from typing import Any

from faiss_distill.errors import MissingDependencyError


def imported(module: str, extra: str, name: str) -> Any:
    """A module of a library that the ``extra`` of this package installs; ``name`` is what needs it, for the error.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(name, package, "none", f"pip install 'faiss-distill[{extra}]'") from error
