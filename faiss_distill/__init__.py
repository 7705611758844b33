"""Fine-tune an existing faiss index by ranking distillation: more recall from the same bytes."""

import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if importlib.util.find_spec("faiss") is None:
    from faiss_distill.errors import MissingDependencyError

    raise MissingDependencyError(
        "faiss", "one of its packages", "none",
        "pip install faiss-cpu, or pip install faiss-gpu-cu12 for CUDA 12, or faiss from conda: one of these, which "
        "overwrite each other",
    )  # fmt: skip

if TYPE_CHECKING:
    from faiss_distill.public import *  # noqa: F403
    from faiss_distill.public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use: torch and faiss take seconds, and an interrupt may come meanwhile."""
        private = name.startswith("_") and name != "__all__"
        if private or importlib.util.find_spec(f"{__name__}.{name}"):  # a module, which Python imports next
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{__name__}.public"), name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        """What there is, the public names included."""
        return sorted({*globals(), *importlib.import_module(f"{__name__}.public").__all__})
