"""ListNet: cross-entropy between the teacher's and the student's top-one probabilities.

Cao et al., "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007 (DOI 10.1145/1273496.1273513),
as used in Distill-VQ, Eq. 12 (DOI 10.1145/3477495.3531799).
"""

from __future__ import annotations

import torch
from torch import Tensor


def listnet(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries of :math:`H(\Phi_t, \Phi_s) = -\sum_d \Phi_t(d) \log \Phi_s(d)`, :math:`\Phi` the softmax.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        teacher_scores: ``(nq, k)``, divided by the temperature; no gradient flows through them.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted. Every query needs at
            least one.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> t = torch.tensor([[2.0, 1.0, 0.0]])
        >>> bool(listnet(t, t) < listnet(t.flip(1), t))
        True
    """
    if mask is not None:
        lowest = torch.finfo(student_scores.dtype).min
        student_scores = torch.where(mask, student_scores, lowest)
        teacher_scores = torch.where(mask, teacher_scores, lowest)
    target = torch.softmax(teacher_scores.detach(), dim=1)
    return -(target * torch.log_softmax(student_scores, dim=1)).sum(dim=1).mean()
