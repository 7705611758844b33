"""Fine-tune an existing faiss index by ranking distillation: more recall from the same bytes."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from faiss_distill.public import (
        Built,
        Description,
        DistillConfig,
        DistillError,
        DistillReport,
        DistillTrainer,
        Evaluation,
        InputError,
        LinearAdapter,
        MissingDependencyError,
        OperatingPoints,
        Suggestion,
        UnsupportedIndexError,
        build,
        describe,
        distill,
        evaluate,
        index_factory,
        operating_points,
        read_qrels,
        suggest,
    )

__all__ = [
    "Built",
    "Description",
    "DistillConfig",
    "DistillError",
    "DistillReport",
    "DistillTrainer",
    "Evaluation",
    "InputError",
    "LinearAdapter",
    "MissingDependencyError",
    "OperatingPoints",
    "Suggestion",
    "UnsupportedIndexError",
    "build",
    "describe",
    "distill",
    "evaluate",
    "index_factory",
    "operating_points",
    "read_qrels",
    "suggest",
]


def __getattr__(name: str) -> Any:
    """A public name, imported on first use: torch and faiss take seconds, and an interrupt may come meanwhile."""
    if name not in __all__:  # modules of the package among them, which Python imports next
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.public"), name)


def __dir__() -> list[str]:
    """What there is, the public names included."""
    return sorted({*globals(), *__all__})
