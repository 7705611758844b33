"""Whether compiled searches can be had: they come with the extra ``fast``, and all results are the same without it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from typing import Any

logger = logging.getLogger(__name__)


@functools.cache
def fused() -> Any:
    """The module of compiled searches, imported when it is first asked for, or None."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        return importlib.import_module("faiss_distill.learning.codes.fused")
    except ImportError as error:  # as numba says where it doesn't go with the numpy installed
        logger.warning("numba is installed but can't be used, so that encoding is slower: %s", error)
        return None
