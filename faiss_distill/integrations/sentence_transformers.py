"""sentence-transformers models as query encoders that learn with the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class SentenceTransformerQueryEncoder(nn.Module):
    """A ``sentence_transformers.SentenceTransformer`` from texts to embeddings, with gradients.

    The model is trained in place: ``model.encode(texts)`` gives the tuned embeddings afterwards. Documents belong to
    the model as it was, so keep a copy of it for new ones.

    Args:
        model: the model that embedded the documents, of dimension ``d``.
        normalize: divide embeddings by their length, as ``model.encode(..., normalize_embeddings=True)`` does.
        prompt: put before each text, as ``model.encode(..., prompt=prompt)`` does; None for the model's default prompt.

    Examples::

        model = SentenceTransformer("all-MiniLM-L6-v2")
        encoder = SentenceTransformerQueryEncoder(model)
        report = distill(index, embeddings, query_encoder=encoder, query_inputs=texts, query_encoder_rate=5e-6)
        index.search(model.encode(["a new query"]), 10)
    """

    def __init__(self, model: SentenceTransformer, normalize: bool = False, prompt: str | None = None) -> None:
        """Wrap the model."""
        super().__init__()
        self.model = model
        self.normalize = normalize
        default = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self.prompt = default if prompt is None else prompt

    def forward(self, texts: list[str]) -> Tensor:
        """A list of ``nq`` texts to embeddings, float32 ``(nq, d)``."""
        from sentence_transformers.util import batch_to_device

        if hasattr(self.model, "preprocess"):
            features = self.model.preprocess(texts, prompt=self.prompt)
        else:  # before version 6
            features = self.model.tokenize([(self.prompt or "") + text for text in texts])
        features = batch_to_device(features, self.model.device)
        out: Tensor = self.model(features)["sentence_embedding"].float()[:, : self.model.truncate_dim]
        return F.normalize(out) if self.normalize else out
