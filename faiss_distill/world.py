"""The processes that share the work of a run, over ``torch.distributed``; one process is a world of one.

All run the same program on the same inputs. Each does its share of what grows with the corpus or with the queries, and
what they find is put together, so that all hold the same at all times; what is small each does for itself. The first
process, rank 0, has the last word wherever two machines might round differently.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from faiss_distill.columns import column
from faiss_distill.errors import DistillError, InputError

T = TypeVar("T")

TIMEOUT = timedelta(days=7)
"""How long processes wait for each other: the first one may have a large corpus to search for itself. One that dies is
noticed at once."""
BLOCK = 2**25
"""Bytes of a column that each process sends at a time."""
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher leaves in the environment of each process."""


@dataclass(frozen=True)
class World:
    """A process group of ``torch.distributed``, or none for one process.

    Attributes:
        group: with a backend for the CPU (gloo) or for CUDA devices (NCCL).
    """

    group: dist.ProcessGroup | None = None

    @property
    def size(self) -> int:
        """Processes."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def main(self) -> bool:
        """Whether it is the first one, which judges, commits and reports."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Which of ``n`` things are for this process: as many as for any other, or one more."""
        return self._shares(n)[self.rank]

    def gathered(self, own: np.ndarray[Any, np.dtype[Any]], n: int) -> np.ndarray[Any, np.dtype[Any]]:
        """What all processes found for their shares of ``n`` rows, put together.

        Args:
            own: what this one found for its own, one row each, of the same shape and dtype in all processes.
            n: rows in all.

        Returns:
            ``n`` rows of the same shape and dtype, the same ones in all processes, as a column.
        """
        if self.size == 1:
            return own
        shares = self._shares(n)
        longest = max(part.stop - part.start for part in shares)
        rows = max(1, BLOCK // max(1, own.itemsize * math.prod(own.shape[1:])))  # as many in all processes
        whole = column((n, *own.shape[1:]), own.dtype)
        for start in range(0, longest, rows):
            sent = np.zeros((min(rows, longest - start), *own.shape[1:]), dtype=own.dtype)
            mine = own[start : start + rows]
            sent[: len(mine)] = mine
            flat = torch.from_numpy(sent.reshape(-1).view(np.uint8)).to(self._device)
            parts = [torch.empty_like(flat) for _ in shares]
            self._ask(partial(dist.all_gather, parts, flat, group=self.group))
            for share, part in zip(shares, parts, strict=True):
                to = whole[share][start : start + rows]
                to[:] = part.cpu().numpy().view(own.dtype).reshape(sent.shape)[: len(to)]
        return whole

    def stacked(self, own: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
        """The arrays of all processes, of one shape, along a new first axis."""
        return self.gathered(own[None], self.size)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each of the tensors, which are of one dtype."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).to(self._device)
        self._ask(lambda: dist.all_reduce(flat, group=self.group))
        self._fill(tensors, flat)

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process holds into the tensors of all; each has the same shapes and dtypes."""
        if self.size == 1:
            return
        for tensor in tensors:
            sent = tensor.detach().to(self._device).contiguous()
            self._ask(partial(dist.broadcast, sent, self._first, group=self.group))
            self._fill([tensor], sent.reshape(-1))

    def agreed(self, value: T) -> T:
        """What the first process passes."""
        if self.size == 1:
            return value
        held = [value]
        self._ask(lambda: dist.broadcast_object_list(held, self._first, group=self.group, device=self._device))
        return held[0]

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Refuse to begin where processes were given different things.

        Args:
            facts: by the name of an argument, something that can be compared.

        Raises:
            InputError: one is another in another process.
        """
        for name, told in zip(facts, zip(*self._told(tuple(facts.values())), strict=True), strict=True):
            others = [rank for rank, value in enumerate(told) if value != told[0]]
            if others:
                processes = ", ".join(map(str, others))
                had = f"another than process 0 in process {processes}"
                raise _known(InputError(name, "the same in all processes", had))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the block only if no process has failed in it: those that have not raise what another one did.

        Raises:
            DistillError: another process failed.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        told = self._told(None if failed is None else str(failed))
        if failed is not None:
            raise _known(failed)
        for rank, text in enumerate(told):
            if text is not None:
                raise _known(DistillError(f"process {rank}", "to get as far as the others", text))

    def parameters(self, module: torch.nn.Module) -> None:
        """Give ``module`` the parameters and buffers that it has in the first process."""
        self.agree(list(module.state_dict().values()))

    def _shares(self, n: int) -> list[slice]:
        ends = [n * rank // self.size for rank in range(self.size + 1)]
        return [slice(start, stop) for start, stop in pairwise(ends)]

    def _told(self, value: T) -> list[T]:
        """What each process passes, small, in order of rank."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        self._ask(lambda: dist.all_gather_object(held, value, group=self.group))
        return held

    def _ask(self, collective: Callable[[], object]) -> None:
        """Have all processes take part in a collective.

        Raises:
            DistillError: one is gone.
        """
        try:
            collective()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DistillError(
                f"process {self.rank} of {self.size}", "all others to be there", reason, "see what they say; start anew"
            ) from error

    @staticmethod
    def _fill(tensors: Iterable[Tensor], flat: Tensor) -> None:
        start = 0
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
                start += tensor.numel()

    @property
    def _first(self) -> int:
        """The rank of the first process in the default group."""
        assert self.group is not None
        return dist.get_global_rank(self.group, 0)

    @property
    def _device(self) -> torch.device:
        """Where its backend takes tensors from."""
        return torch.device("cuda" if dist.get_backend(self.group) == "nccl" else "cpu")


def _known(error: Exception) -> Exception:
    """The same error, marked as one that all processes have heard of, so that one of them can say so for all."""
    error.known_to_all = True  # type: ignore[attr-defined]
    return error


ALONE = World()
"""One process."""


def launched() -> bool:
    """Whether ``torchrun``, or something like it, has started this process as one of several."""
    return set(LAUNCHED) <= os.environ.keys() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(device: str) -> Iterator[dist.ProcessGroup | None]:
    """The processes that were started along with this one, until the block is left; None for one alone.

    Args:
        device: what they compute on; with CUDA each takes a device of its own, and they talk over NCCL.

    Raises:
        DistillError: they can't be joined.
    """
    if not launched():
        yield None
        return
    cuda = device.startswith("cuda")
    try:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    except Exception as error:  # whatever a backend makes of its environment
        where = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
        raise DistillError(where, "to join the others", str(error).splitlines()[0]) from error
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def open_world(group: Any) -> World:
    """The processes of ``group``, or this one alone.

    Raises:
        InputError: it is no process group that this process is in.
    """
    if group is None:
        return ALONE
    inside = dist.is_available() and dist.is_initialized() and group != dist.GroupMember.NON_GROUP_MEMBER
    if not (inside and isinstance(group, dist.ProcessGroup)):
        raise InputError("group", "a process group of torch.distributed that this process is in", repr(group))
    return World(group)
