r"""Query encoders that are trained with the index: Distill-VQ Eq. 5's :math:`\tilde v_q`.

Any ``torch.nn.Module`` will do that maps a batch of query inputs to embeddings ``(nq, d)``. An array of inputs reaches
it as a tensor with one row a query, a list (of texts, say) as a list. Here is one that needs no other library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from faiss_distill.checks import integer
from faiss_distill.data.vectors import open_vectors
from faiss_distill.errors import InputError
from faiss_distill.state import Float32

if TYPE_CHECKING:
    from faiss import LinearTransform

BATCH = 512
"""Queries encoded at a time, outside training."""
PENALTY = 0.01
"""Of a fitted map, in units of the mean variance of what it maps."""


class LinearAdapter(nn.Module):
    """A linear map of query embeddings, the identity at first.

    It costs one small matrix product a query and belongs to queries alone: documents are not mapped.

    Args:
        d: dimension of the index's embeddings.
        bias: whether to learn a shift as well.
        d_in: dimension of the query embeddings, if another; made for that by :meth:`fitted`.

    Examples:
        >>> adapter = LinearAdapter(4)
        >>> adapter(torch.eye(4)).equal(torch.eye(4))
        True
    """

    def __init__(self, d: int, bias: bool = False, d_in: int | None = None) -> None:
        """Start as the identity.

        Raises:
            InputError: a dimension is no positive integer.
        """
        super().__init__()
        d, d_in = integer("d", d, 1), None if d_in is None else integer("d_in", d_in, 1)
        self.linear = nn.Linear(d if d_in is None else d_in, d, bias=bias)
        nn.init.eye_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    @classmethod
    def fitted(cls, new: ArrayLike, old: ArrayLike) -> LinearAdapter:
        """The map, with a shift, from a new encoder's embeddings to an old one's, by least squares.

        Where queries come from another encoder than documents did, it is what to start from: see :ref:`new-encoder`.
        Ridge regression on centred pairs, whose penalty is a hundredth of the mean variance of ``new``.

        Args:
            new: embeddings ``(n, d_in)`` of some texts.
            old: embeddings ``(n, d)`` of the same texts, in the same order; some thousand, and more than
                ``d_in``.

        Raises:
            InputError: they are not two matrices of finite numbers with a row for each of the same texts, or too few.

        Examples:
            >>> new = np.random.default_rng(0).standard_normal((500, 3))
            >>> adapter = LinearAdapter.fitted(new, new @ [[2, 0], [0, 1], [0, 0]] + 5)
            >>> adapter.matrix.round(1) + 0
            array([[2., 0., 0.],
                   [0., 1., 0.]], dtype=float32)
        """
        x, y = (_matrix(given, name) for given, name in ((new, "new"), (old, "old")))
        if len(x) != len(y):
            raise InputError("old", f"embeddings of the {len(x)} texts of new", str(len(y)))
        if len(x) <= x.shape[1]:
            raise InputError("new", f"more texts than its {x.shape[1]} dimensions", str(len(x)), "pass some thousand")
        centre, onto = x.mean(axis=0), y.mean(axis=0)
        spread = (x - centre).T @ (x - centre)
        penalty = PENALTY * np.trace(spread) / len(spread) * np.eye(len(spread))
        matrix = np.linalg.lstsq(spread + penalty, (x - centre).T @ (y - onto), rcond=None)[0].T
        out = cls(y.shape[1], bias=True, d_in=x.shape[1])
        with torch.no_grad():
            out.linear.weight.copy_(torch.from_numpy(matrix))
            out.linear.bias.copy_(torch.from_numpy(onto - matrix @ centre))
        return out

    def forward(self, queries: Tensor) -> Tensor:
        """``queries (nq, d_in)`` to ``(nq, d)``."""
        out: Tensor = self.linear(queries)
        return out

    @property
    def matrix(self) -> Float32:
        """``A`` of ``A q + b``, float32 ``(d, d_in)``."""
        return self.linear.weight.detach().cpu().numpy().copy()

    def to_faiss(self) -> LinearTransform:
        """The same map as a trained ``faiss.LinearTransform``: ``index.search(transform.apply(queries), k)``.

        Don't put it into an ``IndexPreTransform``: that would apply it to added vectors too.
        """
        import faiss

        transform = faiss.LinearTransform(
            self.linear.in_features, self.linear.out_features, self.linear.bias is not None
        )
        faiss.copy_array_to_vector(self.matrix.ravel(), transform.A)
        if self.linear.bias is not None:
            faiss.copy_array_to_vector(self.linear.bias.detach().cpu().numpy().copy(), transform.b)
        transform.is_trained = True
        return transform


def _matrix(given: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        x = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(name, "an array of embeddings, one a row", str(error)) from None
    if x.ndim != 2 or not x.size:
        raise InputError(name, "embeddings, one a row", f"shape {x.shape}")
    if not np.isfinite(x).all():
        raise InputError(name, "finite embeddings", "NaN or infinity")
    return x


def as_inputs(inputs: Any, name: str) -> NDArray[Any]:
    """Query inputs as an array with one row or object a query, so that they can be indexed.

    Raises:
        InputError: none of them, or neither an array nor a list.
    """
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.detach().cpu()
        inputs = (inputs.float() if inputs.is_floating_point() else inputs).numpy()
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "fiu":
        out = np.ascontiguousarray(inputs)
    elif isinstance(inputs, list | tuple | np.ndarray):
        out = np.empty(len(inputs), dtype=object)
        out[:] = list(inputs)
    else:
        raise InputError(name, "an array or a list with one entry a query", type(inputs).__name__)
    if len(out) == 0:
        raise InputError(name, "one for each query", "none")
    if out.dtype.kind == "f":
        open_vectors(out.reshape(len(out), -1), name).check_finite(BATCH, distances=False)
    return out


def apply(encoder: nn.Module, inputs: NDArray[Any], device: torch.device) -> Tensor:
    """One batch of ``inputs`` through ``encoder``, on ``device``."""
    if inputs.dtype == object:
        out = encoder(inputs.tolist())
    else:
        kind = torch.float32 if inputs.dtype.kind == "f" else torch.int64
        out = encoder(torch.from_numpy(inputs).to(device, kind))
    return out.float() if isinstance(out, Tensor) else out


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each of its modules in the mode that it was in."""
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def embed(encoder: nn.Module, inputs: NDArray[Any], device: torch.device) -> Tensor:
    """All of ``inputs`` as embeddings ``(nq, d)`` on ``device``, in evaluation mode.

    Raises:
        InputError: some of them are not finite.
    """
    with evaluating(encoder):
        out = torch.cat([apply(encoder, inputs[i : i + BATCH], device) for i in range(0, len(inputs), BATCH)])
    open_vectors(out.numpy(force=True), "query_encoder").check_finite(BATCH)
    return out


def home(encoder: Any) -> torch.device:
    """The device that its parameters are on."""
    parameters = encoder.parameters() if isinstance(encoder, nn.Module) else ()
    return next((p.device for p in parameters), torch.device("cpu"))


def check_encoder(encoder: Any, inputs: NDArray[Any], d: int, device: torch.device) -> None:
    """Try the encoder on two queries.

    Raises:
        InputError: it is no module, fails, or returns the wrong shape, NaN, infinity, or no gradient.
    """
    if not isinstance(encoder, nn.Module):
        raise InputError("query_encoder", "a torch.nn.Module", type(encoder).__name__)
    few = inputs[:2]
    try:
        with evaluating(encoder), torch.enable_grad():
            out = apply(encoder, few, device)
    except Exception as error:
        raise InputError(
            "query_encoder", f"it to encode the first {len(few)} query inputs", str(error) or type(error).__name__
        ) from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape != (len(few), d):
        raise InputError("query_encoder", f"embeddings of shape {(len(few), d)}", str(shape))
    if not torch.isfinite(out).all():
        raise InputError("query_encoder", "finite embeddings", "NaN or infinity")
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    gradients: tuple[Tensor | None, ...] = ()
    if out.requires_grad and parameters:
        with torch.enable_grad():
            gradients = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    if not any(g is not None for g in gradients):
        raise InputError(
            "query_encoder",
            "embeddings with a gradient to its parameters",
            "none",
            "let some of them require one, and don't detach or convert to numpy on the way",
        )
