"""What was measured in an input, against the ranges that a model's card states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from tomolens.core.reconstruction import Check


class Known(NamedTuple):
    """One number about an input as a reader sees it; NaN where it could not be measured."""

    name: str
    value: float
    unit: str = ""


def against_ranges(known: Mapping[str, Known], ranges: Mapping[str, tuple[float, float]]) -> tuple[Check, ...]:
    """A check for each range, with what is ``known`` by its name; one that nothing was measured for says so."""
    return tuple(
        Check(*known.get(name, Known(name.replace("_", " "), math.nan)), *bounds) for name, bounds in ranges.items()
    )
