"""Several processes that train one network together, by torch's DistributedDataParallel, on one machine.

The process that asks for the team is its first member and goes on as it would alone: it shows progress and can be
stopped. The others are started for it, follow it, and end with it. gloo joins them on the CPU, nccl on CUDA, where each
takes one GPU.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from tomolens.core.errors import OptionError, TomolensError
from tomolens.models.inference import Backend

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_PATIENCE = timedelta(hours=6)
"""How long a member waits for the others: the first one mines whole scans meanwhile."""
_HOST = "127.0.0.1"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """What one process knows of those that it trains with: its number, theirs, and where it computes."""

    backend: Backend
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first one, which mines, saves and logs for all."""
        return self.rank == 0

    def share(self, indices: Sequence[int], batch: int) -> list[int]:
        """The part of each batch that this process takes; ``indices`` are those of whole batches one after another.

        Raises
        ------
        OptionError
            If a batch cannot be shared evenly.
        """
        check_shared(batch, self.size)
        part = batch // self.size
        return [index for place, index in enumerate(indices) if place % batch // part == self.rank]

    def total(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def told(self, value: Value) -> Value:
        """What the first process has here."""
        if self.size == 1:
            return value
        shown = [value if self.leads else None]
        distributed.broadcast_object_list(shown, device=self.backend.device)
        return shown[0]  # type: ignore[return-value] # the first one's, by now


def check_shared(batch: int, processes: int) -> None:
    """Refuse a batch that processes cannot share evenly.

    Raises
    ------
    OptionError
        With both numbers; also if ``processes`` is below 1.
    """
    _check_processes(processes)
    if batch % processes:
        raise OptionError(f"A batch of {batch} cannot be shared evenly by {processes} processes.")


def _check_processes(processes: int) -> None:
    if processes < 1:
        raise OptionError(f"processes is at least 1, not {processes}.")


@contextmanager
def team_of(processes: int, device: str, follow: Callable[..., None], *arguments: Any) -> Iterator[Team]:
    """Start ``processes`` - 1 followers, each of which calls ``follow(team, *arguments)``; yield the first one's team.

    ``follow`` is a function of a module and ``arguments`` can be pickled. Leaving the block waits for the followers, or
    ends them if the work was stopped.

    Raises
    ------
    OptionError
        If there are not so many GPUs, or ``processes`` is below 1.
    TomolensError
        If a follower ended too early.
    """
    first = _backend_of(0, processes, device)
    if processes == 1:
        yield Team(first)
        return
    store = _store(0, is_master=True, wait_for_workers=False)
    context = get_context("spawn")
    followers = [
        context.Process(target=_follow, args=(rank, processes, device, store.port, follow, arguments))
        for rank in range(1, processes)
    ]
    try:
        for follower in followers:
            follower.start()
        _await(followers, store)
        with _all_at_hand(followers), _joined(Team(first, 0, processes), store) as team:
            yield team
    finally:
        _end(followers)


def _backend_of(rank: int, processes: int, device: str) -> Backend:
    """Where a member computes: each has a GPU of its own, from the first one on; on the CPU they share the cores."""
    _check_processes(processes)
    backend = Backend.choose(device)
    if processes == 1 or backend.device.type == "cpu":
        return backend
    if backend.device.index is not None:
        raise OptionError(f"{processes} processes take a GPU each: choose cuda, not {device}.")
    if processes > torch.cuda.device_count():
        raise OptionError(f"{processes} processes need as many GPUs; torch finds {torch.cuda.device_count()}.")
    return Backend.choose(f"cuda:{rank}")


def _follow(rank: int, size: int, device: str, port: int, follow: Callable[..., None], arguments: tuple[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one answers for all
    store = _store(port, is_master=False)
    store.set(f"here {rank}", "yes")
    with _joined(Team(_backend_of(rank, size, device), rank, size), store) as team:
        follow(team, *arguments)


def _store(port: int, **role: bool) -> Any:
    """Where the members meet; torch's stub does not export its type."""
    return distributed.TCPStore(_HOST, port, None, timeout=_PATIENCE, **role)  # type: ignore[attr-defined]


@contextmanager
def _joined(team: Team, store: Any) -> Iterator[Team]:
    device, threads = team.backend.device, torch.get_num_threads()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // team.size))
    name = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(name, store=store, rank=team.rank, world_size=team.size, timeout=_PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)  # of 1x1 kernels; harmless
            yield team
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(threads)


def _await(followers: Sequence[SpawnProcess], store: Any) -> None:
    """Wait until every follower has started, or refuse if one could not."""
    with _all_at_hand(followers):
        while not store.check([f"here {rank}" for rank in range(1, len(followers) + 1)]):
            if any(follower.exitcode is not None for follower in followers):
                raise RuntimeError("a process ended before it had joined")
            time.sleep(0.05)


@contextmanager
def _all_at_hand(followers: Sequence[SpawnProcess]) -> Iterator[None]:
    """Name the follower whose end made the work fail."""
    try:
        yield
    except RuntimeError as broken:
        time.sleep(0.5)
        ended = {rank: f.exitcode for rank, f in enumerate(followers, start=1) if f.exitcode}
        if not ended:
            raise
        raise TomolensError(
            f"Of {len(followers) + 1} processes that trained together these ended too early (number: exit code): "
            f"{ended}. What they said stands above."
        ) from broken


def _end(followers: Sequence[SpawnProcess]) -> None:
    for follower in followers:
        if follower.pid is not None:
            follower.join(0.5 if follower.exitcode is None else 0)
            follower.terminate()
            follower.join()
