r"""KL: divergence of the student's top-one probabilities from the teacher's.

Distill-VQ, Eq. 7-12 (DOI 10.1145/3477495.3531799). The student comes first, unlike in ListNet, which is
:math:`KL(\Phi_t \| \Phi_s)` up to a constant: this one punishes a student that is sure where the teacher isn't.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries of :math:`KL(\Phi_s \| \Phi_t) = \sum_d \Phi_s(d) \log \frac{\Phi_s(d)}{\Phi_t(d)}`.

    :math:`\Phi` is the softmax over the candidates.

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
        >>> bool(kl(t, t) < kl(t.flip(1), t))
        True
    """
    if mask is not None:
        lowest = torch.finfo(student_scores.dtype).min
        student_scores = torch.where(mask, student_scores, lowest)
        teacher_scores = torch.where(mask, teacher_scores, lowest)
    student = torch.log_softmax(student_scores, dim=1)
    teacher = torch.log_softmax(teacher_scores.detach(), dim=1)
    return (student.exp() * (student - teacher)).sum(dim=1).mean()
