"""RankNet: logistic loss on the pairs that the teacher orders, each weighted by the teacher's margin.

Burges et al., "Learning to Rank using Gradient Descent", ICML 2005 (DOI 10.1145/1102351.1102363), with the weights of
Distill-VQ, Eq. 7-12 (DOI 10.1145/3477495.3531799).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def ranknet(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries, and over pairs with :math:`t_i > t_j`, of :math:`-(t_i - t_j) \log \sigma(s_i - s_j)`.

    Takes memory for all ``(nq, k, k)`` pairs.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        teacher_scores: ``(nq, k)``, divided by the temperature; no gradient flows through them.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted. A query without two that the
            teacher tells apart contributes 0.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> t = torch.tensor([[2.0, 1.0, 0.0]])
        >>> bool(ranknet(t, t) < ranknet(t.flip(1), t))
        True
    """
    if mask is None:
        mask = torch.ones_like(student_scores, dtype=torch.bool)
    both = mask[:, :, None] & mask[:, None, :]
    s, t = student_scores.masked_fill(~mask, 0.0), teacher_scores.detach()
    margin = (t[:, :, None] - t[:, None, :]).masked_fill(~both, 0.0).clamp(min=0.0)
    loss = -margin * F.logsigmoid(s[:, :, None] - s[:, None, :])
    return (loss.sum(dim=(1, 2)) / (margin > 0).sum(dim=(1, 2)).clamp(min=1)).mean()
