"""Candidates in the teacher's order, a sort that ListMLE and LambdaRank share."""

from __future__ import annotations

from torch import Tensor


def descending(scores: Tensor, ties: Tensor) -> Tensor:
    """Indices ``(nq, k)`` that sort each row of ``scores``, highest first, equal ones by ``ties``, highest first.

    A position in a row never decides between candidates that differ in either, so a loss doesn't depend on the order
    in which the candidates come.

    Examples:
        >>> import torch
        >>> descending(torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 5.0]])).tolist()
        [[2, 1, 0]]
    """
    order = ties.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
