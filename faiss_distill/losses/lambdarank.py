"""LambdaRank: logistic loss on the pairs that the teacher orders, each weighted by what it is worth in NDCG.

Burges et al., "Learning to Rank with Nonsmooth Cost Functions", NIPS 2006, as a loss rather than a gradient after Wang
et al., "The LambdaLoss Framework for Ranking Metric Optimization", CIKM 2018 (DOI 10.1145/3269206.3271784).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faiss_distill.losses._order import descending


def lambdarank(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries of :math:`-\sum_{t_i > t_j} |\Delta NDCG_{ij}| \log \sigma(s_i - s_j)`.

    .. math:: |\Delta NDCG_{ij}| = \frac{|G_i - G_j|}{IDCG}
        \left| \frac{1}{\log_2(1 + r_i)} - \frac{1}{\log_2(1 + r_j)} \right|

    is what exchanging two candidates in the student's ranking :math:`r` changes. Gains are the teacher's softmax over
    its maximum, :math:`G_d = \exp(t_d - \max t)`, so that a temperature decides how many candidates matter. Where the
    student ties candidates, it ranks the worst first: a pair that it doesn't tell apart has a weight too. No gradient
    flows through the weights. Takes memory for all ``(nq, k, k)`` pairs.

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
        >>> bool(lambdarank(t, t) < lambdarank(t.flip(1), t))
        True
    """
    if mask is None:
        mask = torch.ones_like(student_scores, dtype=torch.bool)
    weights = _delta_ndcg(student_scores.detach(), teacher_scores.detach(), mask)
    s = student_scores.masked_fill(~mask, 0.0)
    return -(weights * F.logsigmoid(s[:, :, None] - s[:, None, :])).sum(dim=(1, 2)).mean()


def _delta_ndcg(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """What exchanging ``i`` and ``j`` changes, ``(nq, k, k)``; 0 unless the teacher prefers ``i`` and both count."""
    lowest = torch.finfo(student_scores.dtype).min
    s, t = student_scores.masked_fill(~mask, lowest), teacher_scores.masked_fill(~mask, lowest)
    gains = torch.exp(t - t.amax(dim=1, keepdim=True))
    by_rank = 1 / torch.log2(torch.arange(2, 2 + s.shape[1], dtype=s.dtype, device=s.device))
    discounts = by_rank[descending(s, ties=-t).argsort(dim=1)]
    ideal = gains.sort(dim=1, descending=True).values @ by_rank
    preferred = (gains[:, :, None] - gains[:, None, :]).clamp(min=0.0)
    moved = (discounts[:, :, None] - discounts[:, None, :]).abs()
    both = mask[:, :, None] & mask[:, None, :]
    return (preferred * moved / ideal[:, None, None]).masked_fill(~both, 0.0)
