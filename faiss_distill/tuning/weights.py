"""The weights of a query encoder as a part of a transaction."""

from __future__ import annotations

import copy

from torch import nn

from faiss_distill.index.parts.transaction import Change


class Weights(Change):
    """What training in place changes in a query encoder.

    Args:
        encoder: not trained yet.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """Copy its weights."""
        self._encoder, self._old = encoder, copy.deepcopy(encoder.state_dict())
        self._modes = {module: module.training for module in encoder.modules()}

    def apply(self) -> None:
        """Nothing: training does."""

    def undo(self) -> None:
        """Put back the old weights, and the modes that an evaluation may have set for a while."""
        self._encoder.load_state_dict(self._old)
        for module, mode in self._modes.items():
            module.training = mode
