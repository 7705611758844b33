"""ListMLE: how unlikely the student finds the teacher's order, under the Plackett-Luce model.

Xia et al., "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML 2008 (DOI 10.1145/1390156.1390306).
"""

from __future__ import annotations

import torch
from torch import Tensor

from faiss_distill.losses._order import descending


def listmle(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries of :math:`-\frac{1}{k} \sum_r \log \frac{\exp s_{\pi(r)}}{\sum_{l \ge r} \exp s_{\pi(l)}}`.

    :math:`\pi` is the teacher's order, best first. Where the teacher ties candidates, it is the student's: of the
    orders that fit the teacher, the likeliest.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        teacher_scores: ``(nq, k)``, divided by the temperature; no gradient flows through them.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted. A query without any
            contributes 0.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> t = torch.tensor([[2.0, 1.0, 0.0]])
        >>> bool(listmle(t, t) < listmle(t.flip(1), t))
        True
    """
    if mask is None:
        mask = torch.ones_like(student_scores, dtype=torch.bool)
    lowest = torch.finfo(student_scores.dtype).min
    student_scores = torch.where(mask, student_scores, lowest)
    teacher_scores = torch.where(mask, teacher_scores, lowest)
    # worst first, so that the sum over what ranks at r or below is a running one
    order = descending(teacher_scores.detach(), ties=student_scores.detach()).flip(1)
    s = student_scores.gather(1, order)
    # logcumsumexp has an inexact gradient far from zero
    s = s - s.detach().amax(dim=1, keepdim=True)
    loss = (torch.logcumsumexp(s, dim=1) - s).masked_fill(~mask.gather(1, order), 0.0)
    return (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
