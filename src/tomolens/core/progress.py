"""How long work says where it is, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One report of progress: ``done`` of ``total`` units of ``stage`` are finished.

    ``total`` is 0 where it is not known yet. With ``remark``, ``stage`` is a sentence for the user to keep, e.g. that
    memory ran out and what is tried instead.
    """

    stage: str
    done: int
    total: int
    remark: bool = False

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, 0 to 1; 0 where the total is not known."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


Progress = Callable[[Step], None]
"""Called after each unit of work. To stop the work it raises `tomolens.core.errors.Cancelled`."""


def silent(step: Step) -> None:
    """Report nothing."""
