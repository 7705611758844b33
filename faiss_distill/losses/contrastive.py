"""Contrastive: the student tells a query's labelled documents from its other candidates. No teacher.

Xiao et al., "Matching-oriented Embedding Quantization For Ad-hoc Retrieval" (MoPQ), EMNLP 2021
(DOI 10.18653/v1/2021.emnlp-main.640), trains an index so. JPQ, Zhan et al., CIKM 2021 (DOI 10.1145/3459637.3482358),
learns from the same labels, pair by pair.
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive(student_scores: Tensor, positives: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean over queries, and over a query's positives :math:`P`, of :math:`-\log \Phi_s(d), d \in P`.

    :math:`\Phi_s` is the softmax of the student's scores over the candidates. Queries without a positive are left out;
    the loss is 0 if none has one.

    Args:
        student_scores: ``(nq, k)``, divided by the temperature.
        positives: bool ``(nq, k)``, true where a candidate is labelled relevant.
        mask: bool ``(nq, k)``, true where a candidate counts; all of them when omitted.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> s = torch.tensor([[2.0, 1.0, 0.0]])
        >>> best, worst = torch.tensor([[True, False, False]]), torch.tensor([[False, False, True]])
        >>> bool(contrastive(s, best) < contrastive(s, worst))
        True
    """
    if mask is not None:
        student_scores = torch.where(mask, student_scores, torch.finfo(student_scores.dtype).min)
        positives = positives & mask
    count = positives.sum(dim=1)
    loss = -torch.log_softmax(student_scores, dim=1).masked_fill(~positives, 0.0).sum(dim=1)
    return (loss / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)
