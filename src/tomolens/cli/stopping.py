"""Stop in an orderly way when asked: by Ctrl-C (SIGINT) or by a scheduler (SIGTERM)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""
TERMINATED = 143
"""Exit code after SIGTERM: 128 + SIGTERM."""


@contextmanager
def orderly_stop() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit`, so that every temporary file is removed on the way out as it is after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hear Ctrl-C and SIGTERM only after a block: torch's libraries abort the process where one comes as they load."""
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda came, _: heard.append(came)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
