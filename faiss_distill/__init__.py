"""Fine-tune an existing faiss index by ranking distillation: more recall from the same bytes."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from faiss_distill.public import *  # noqa: F403
    from faiss_distill.public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use: torch and faiss take seconds, and an interrupt may come meanwhile."""
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = importlib.import_module(f"{__name__}.public")
        try:
            return getattr(public, name) if name in (*public.__all__, "__all__") else globals()[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        """What there is, the public names included."""
        return sorted({*globals(), *importlib.import_module(f"{__name__}.public").__all__})
