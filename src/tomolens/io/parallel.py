"""Files read several at once: disks and networks wait, and some decoders hold no interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
_MOST_THREADS = 8


@contextmanager
def in_parallel(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Iterator[Result]]:
    """Give the results of ``work`` on each job as they are done, in any order.

    Whatever is raised, by the work or by who takes the results, ends the work: jobs not yet begun are dropped and those
    begun are waited for.
    """
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        futures = [pool.submit(work, job) for job in jobs]
        yield (future.result() for future in as_completed(futures))
    finally:
        pool.shutdown(cancel_futures=True)
