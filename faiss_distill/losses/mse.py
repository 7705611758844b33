"""MSE: the student reproduces the teacher's scores themselves.

Distill-VQ, Eq. 7-12 (DOI 10.1145/3477495.3531799).
"""

from __future__ import annotations

import torch
from torch import Tensor


def mse(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries of :math:`\frac{1}{k} \sum_d (s_d - t_d)^2`.

    The only loss here that a shift of all of a query's scores changes.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        teacher_scores: ``(nq, k)``, divided by the temperature; no gradient flows through them.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted. A query without any
            contributes 0.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(2.)
    """
    if mask is None:
        mask = torch.ones_like(student_scores, dtype=torch.bool)
    difference = (student_scores - teacher_scores.detach()).masked_fill(~mask, 0.0)
    return (difference.square().sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
