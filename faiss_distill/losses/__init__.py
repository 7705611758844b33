"""What is minimised: similarities of teacher and student scores, and the peers' objectives, one a file.

Most are pure functions ``(student_scores, teacher_scores, mask) -> scalar``, all of shape ``(nq, k)``, scores already
divided by the temperature, ``mask`` true where a candidate counts. What else one compares with is in its row of
:data:`LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from faiss_distill.losses.contrastive import contrastive
from faiss_distill.losses.kl import kl
from faiss_distill.losses.lambdarank import lambdarank
from faiss_distill.losses.listmle import listmle
from faiss_distill.losses.listnet import listnet
from faiss_distill.losses.margin_mse import margin_mse
from faiss_distill.losses.mse import mse
from faiss_distill.losses.ranknet import ranknet
from faiss_distill.losses.reconstruction import reconstruction

__all__ = [
    "LOSSES",
    "Loss",
    "contrastive",
    "kl",
    "lambdarank",
    "listmle",
    "listnet",
    "margin_mse",
    "mse",
    "ranknet",
    "reconstruction",
]


@dataclass(frozen=True)
class Loss:
    """A row of the registry.

    Attributes:
        function: the loss, with a scalar result.
        compares: what the student is compared with: the ``"teacher"``'s scores; ``"labels"``, bool of that shape, in
            their place; or ``"vectors"``: the function takes the documents and what the index makes of them,
            ``(n, d)`` each, and there are no queries.
        of_the_best: whether it sees, of many candidates, only those that the teacher likes best: since the cost of
            pairs grows with their square, or since it would spend itself on an order that nobody looks at.
    """

    function: Callable[..., Tensor]
    compares: Literal["teacher", "labels", "vectors"] = "teacher"
    of_the_best: bool = False


LOSSES = {
    "listnet": Loss(listnet),
    "kl": Loss(kl),
    "ranknet": Loss(ranknet, of_the_best=True),
    "mse": Loss(mse),
    "margin_mse": Loss(margin_mse),
    "listmle": Loss(listmle, of_the_best=True),
    "lambdarank": Loss(lambdarank, of_the_best=True),
    "contrastive": Loss(contrastive, compares="labels"),
    "reconstruction": Loss(reconstruction, compares="vectors"),
}
"""The losses by name. Options, command line and factory strings take their names from here."""
