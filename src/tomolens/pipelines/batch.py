"""The same work on one volume after another; what goes wrong with one stays with it."""

from __future__ import annotations

import gc
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from time import perf_counter
from typing import Generic, TypeVar

from tomolens.core.errors import Cancelled, ContractError
from tomolens.core.finding import Detection
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.reconstruction import Reconstruction
from tomolens.core.segmentation import Segmentation

T = TypeVar("T")
S = TypeVar("S")
"""What is read of an item: a volume, or a measurement in k-space."""
R = TypeVar("R", Detection, Segmentation, Reconstruction)
"""What the work makes of it, and which holds its volume."""
K = TypeVar("K")
"""What is left of a result once it is kept."""


@dataclass(frozen=True)
class Failure:
    """Why an item has no result, as text, so that no traceback keeps a volume in memory.

    ``refused`` is True where the model is not made for the volume (`ContractError`), False for any other error.
    """

    message: str
    details: str
    refused: bool


@dataclass(frozen=True)
class Outcome(Generic[T, K]):
    """What became of one item: what is left of its result, or else a failure."""

    item: T
    seconds: float
    result: K | None = None
    failure: Failure | None = None


def run_each(
    items: Iterable[T],
    read: Callable[[T, Progress], S],
    work: Callable[[S, Progress], R],
    *,
    keep: Callable[[T, R], K],
    progress: Progress = silent,
) -> Generator[Outcome[T, K], None, None]:
    """Read, work and keep, one item after another.

    While one volume is worked on, the next is read in a thread; no more than these two are in memory.

    Parameters
    ----------
    items
        Whatever ``read`` understands.
    read
        Gives the volume of an item; called in another thread, one item at a time.
    work
        Detects, segments or reconstructs: `detect_nodules`, `segment` or `reconstruct` with its model.
    keep
        Writes a result, which still holds its volume, wherever it belongs, and gives what is left of it: no volume.
    progress
        Told of the item that is worked on; may raise `Cancelled` to stop everything.

    Yields
    ------
    Outcome
        One an item, in their order, as soon as it is kept or has failed.

    Raises
    ------
    Cancelled
        If ``progress`` asked to stop.
    """
    with closing(_read_ahead(items, read)) as volumes:
        started = perf_counter()
        for item, volume in volumes:
            progress(Step("read", 0, 0))
            result = _attempt(item, volume, work, keep, progress)
            del volume
            seconds, started = perf_counter() - started, perf_counter()
            if isinstance(result, Failure):
                gc.collect()  # an error and its traceback hold each other, and the frames in it hold a volume
                yield Outcome(item, seconds, failure=result)
            else:
                yield Outcome(item, seconds, result=result)


def _attempt(
    item: T,
    volume: Future[S],
    work: Callable[[S, Progress], R],
    keep: Callable[[T, R], K],
    progress: Progress,
) -> K | Failure:
    try:
        result = work(volume.result(), progress)
        progress(Step("write", 0, 0))
        return keep(item, result)
    except Cancelled:
        raise
    except Exception as error:  # whatever a damaged file or a full disk may cause: the next item must still be read
        message = str(error) or type(error).__name__
        return Failure(message, "".join(traceback.format_exception(error)), isinstance(error, ContractError))


def _read_ahead(items: Iterable[T], read: Callable[[T, Progress], S]) -> Generator[tuple[T, Future[S]], None, None]:
    """Each item with its volume to come; the next one is being read while the caller works on this one."""
    stopped = Event()

    def until_stopped(step: Step) -> None:
        if stopped.is_set():
            raise Cancelled("The reading was stopped.")

    waiting: deque[tuple[T, Future[S]]] = deque()
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        try:
            for item in items:
                waiting.append((item, reader.submit(read, item, until_stopped)))
                if len(waiting) > 1:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            stopped.set()
            reader.shutdown(wait=False, cancel_futures=True)
