"""Fine-tune an existing faiss index by ranking distillation: more recall from the same bytes."""

import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from faiss_distill.public import *  # noqa: F403
    from faiss_distill.public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use: torch and faiss take seconds, and an interrupt may come meanwhile."""
        private = name.startswith("_") and name != "__all__"
        if private or importlib.util.find_spec(f"{__name__}.{name}"):  # a module, which Python imports next
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.public"), name)

    def __dir__() -> list[str]:
        """What there is, the public names included."""
        return sorted({*globals(), *importlib.import_module(f"{__name__}.public").__all__})
