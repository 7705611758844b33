"""Codes of low squared error, and what codes stand for, by product and by additive quantizers.

Both have codebooks ``(nsplits, steps, ksub, dsub)``: a vector's dimensions are split into ``nsplits`` parts, and each
is the sum of a codeword from each of its ``steps`` codebooks. Product quantizers (Jégou et al., TPAMI 2011, DOI
10.1109/TPAMI.2010.57) have one step; residual and local search quantizers one split.
"""

from __future__ import annotations

import torch
from torch import Tensor

BEAM = 8
"""Partial codes that a beam search follows."""
SWEEPS = 3
"""Passes over the codebooks after the beam search, at most."""


def decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Sums of codewords, side by side: ``codes (n, nsplits * steps)`` to ``(n, d)``."""
    splits, steps, ksub, dsub = codebooks.shape
    flat = codes + torch.arange(splits * steps, device=codes.device) * ksub
    words = codebooks.reshape(-1, dsub).index_select(0, flat.flatten())  # its gradient is cheaper than an embedding's
    return words.view(len(codes), splits, steps, dsub).sum(2).flatten(1)


def nearest_codes(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of low squared error: int64 ``(n, nsplits * steps)`` of ``vectors (n, d)``.

    With one step these are the nearest codewords. With more they come from a beam search, and then from changing one
    code at a time.
    """
    if codebooks.shape[1] == 1:
        return _nearest_words(vectors, codebooks[:, 0])
    rows = max(1, 2**24 // codebooks.shape[2])  # so that a table of errors stays within 64 MiB
    return torch.cat([_swept(part, codebooks) for part in torch.split(vectors, rows)])


def beam_codes(vectors: Tensor, codebooks: Tensor, beam: int = BEAM) -> Tensor:
    """Codes of low squared error, by beam search (Babenko and Lempitsky, CVPR 2014, DOI 10.1109/CVPR.2014.124).

    Args:
        vectors: ``(n, d)``.
        codebooks: ``(nsplits, steps, ksub, dsub)``.
        beam: partial codes followed.

    Returns:
        Codes, int64 ``(n, nsplits * steps)``.
    """
    n, (splits, steps, ksub, dsub) = len(vectors), codebooks.shape
    codes = torch.empty(n, splits * steps, dtype=torch.int64, device=vectors.device)
    rows = max(1, 2**22 // (beam * max(ksub, dsub)))
    for start in range(0, n, rows):
        for i, books in enumerate(codebooks):
            part = vectors[start : start + rows, None, i * dsub : (i + 1) * dsub]  # (b, beam so far, dsub)
            found = codes.new_empty(len(part), 1, 0)
            for book in books:
                errors = part.square().sum(2)[:, :, None] + book.square().sum(1) - 2 * part @ book.T
                best = errors.flatten(1).topk(min(beam, errors[0].numel()), largest=False).indices
                came, word = best // ksub, best % ksub
                found = torch.cat(
                    [found.gather(1, came[:, :, None].expand(-1, -1, found.shape[2])), word[:, :, None]], 2
                )
                part = part.gather(1, came[:, :, None].expand(-1, -1, dsub)) - book[word]
            codes[start : start + rows, i * steps : (i + 1) * steps] = found[:, 0]  # topk sorts
    return codes


def _nearest_words(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """The nearest codeword of each segment, with ``codebooks (nsplits, ksub, dsub)``: int64 ``(n, nsplits)``."""
    n_segments, ksub, dsub = codebooks.shape
    norms = codebooks.square().sum(2)
    codes = torch.empty(len(vectors), n_segments, dtype=torch.int64, device=vectors.device)
    rows = max(1, 2**24 // ksub)  # so that the table of distances stays within 64 MiB
    for start in range(0, len(vectors), rows):
        part = slice(start, start + rows)
        for m in range(n_segments):
            segment = vectors[part, m * dsub : (m + 1) * dsub]
            codes[part, m] = torch.addmm(norms[m], segment, codebooks[m].T, alpha=-2).argmin(1)
    return codes


def _swept(vectors: Tensor, codebooks: Tensor) -> Tensor:
    """Those of a beam search, changed one at a time for as long as that lowers an error."""
    splits, steps, _, dsub = codebooks.shape
    codes = beam_codes(vectors, codebooks)
    error = vectors - decode(codes, codebooks)
    for _ in range(SWEEPS):
        before = codes.clone()
        for i in range(splits):
            for m, book in enumerate(codebooks[i]):
                at, segment = i * steps + m, slice(i * dsub, (i + 1) * dsub)
                without = error[:, segment] + book[codes[:, at]]
                codes[:, at] = torch.addmm(book.square().sum(1), without, book.T, alpha=-2).argmin(1)
                error[:, segment] = without - book[codes[:, at]]
        if torch.equal(codes, before):
            break
    return codes
