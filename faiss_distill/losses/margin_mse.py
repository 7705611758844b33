"""Margin-MSE: the student reproduces the teacher's margin between every two candidates.

Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation", 2020
(arXiv:2010.02666), as used in Distill-VQ, Eq. 7-12 (DOI 10.1145/3477495.3531799).
"""

from __future__ import annotations

import torch
from torch import Tensor


def margin_mse(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries, and over pairs :math:`i < j`, of :math:`((t_i - t_j) - (s_i - s_j))^2`.

    With :math:`\delta = s - t`, each square is :math:`(\delta_i - \delta_j)^2`, and the squares of all pairs add up to
    :math:`k \sum_d (\delta_d - \bar\delta)^2`: no pair is ever formed.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        teacher_scores: ``(nq, k)``, divided by the temperature; no gradient flows through them.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted. A query with fewer than two
            contributes 0.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> t = torch.tensor([[2.0, 1.0, 0.0]])
        >>> margin_mse(t + 5, t), margin_mse(2 * t, t)
        (tensor(0.), tensor(2.))
    """
    if mask is None:
        mask = torch.ones_like(student_scores, dtype=torch.bool)
    count = mask.sum(dim=1, keepdim=True)
    difference = (student_scores - teacher_scores.detach()).masked_fill(~mask, 0.0)
    mean = difference.sum(dim=1, keepdim=True) / count.clamp(min=1)
    deviation = (difference - mean).masked_fill(~mask, 0.0)
    # k Σ deviation² over k (k - 1) / 2 pairs
    return (2 * deviation.square() / (count - 1).clamp(min=1)).sum(dim=1).mean()
