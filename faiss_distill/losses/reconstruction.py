"""Reconstruction: the index reproduces the document vectors. No queries, no teacher.

What k-means and product quantization minimise, one after the other (Jégou et al., "Product Quantization for Nearest
Neighbor Search", TPAMI 2011, DOI 10.1109/TPAMI.2010.57), and what DPQ (Chen et al., ICML 2020, arXiv:1908.09756) and
Poeem (Zhang et al., SIGIR 2021, DOI 10.1145/3404835.3462988) train jointly.
"""

from __future__ import annotations

from torch import Tensor


def reconstruction(vectors: Tensor, reconstructed: Tensor) -> Tensor:
    r"""Mean over documents of :math:`\|v_d - \hat v_d\|^2`.

    Args:
        vectors: ``(n, d)``, the documents.
        reconstructed: ``(n, d)``, what the index makes of them.

    Returns:
        Scalar tensor.

    Examples:
        >>> import torch
        >>> reconstruction(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        tensor(12.5000)
    """
    return (vectors - reconstructed).square().sum(dim=1).mean()
