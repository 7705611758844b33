"""Whether compiled searches can be had: they come with the extra ``fast``, and all results are the same without it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import Any

logger = logging.getLogger(__name__)

fused: Any = None
"""The module of compiled searches, or None."""

if importlib.util.find_spec("numba") is not None:
    try:
        fused = importlib.import_module("faiss_distill.learning.codes.fused")
    except ImportError as error:  # as numba says where it doesn't go with the numpy installed
        logger.warning("numba is installed but can't be used, so that encoding is slower: %s", error)
