"""Work on many documents at once, a thread for each part of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def in_threads(work: Callable[[slice], Tensor], n: int, size: int, device: torch.device) -> Tensor:
    """What ``work`` makes of ``n`` rows, ``size`` at a time, put together; without gradients.

    On a CPU as many threads take part as torch has for one operation, and each operation then has one: small ones don't
    gain from more. The number of threads is as before when this returns, whatever happens.
    """
    parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    threads = min(torch.get_num_threads(), len(parts)) if device.type == "cpu" else 1
    quiet = torch.no_grad()(work)
    if threads < 2:
        return torch.cat([quiet(part) for part in parts])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return torch.cat(list(pool.map(quiet, parts)))
    finally:
        torch.set_num_threads(before)
