"""What is told of a reconstruction from k-space: the measurement against the training range, and how well it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tomolens.models.range_checks import Known, against_ranges
from tomolens.physics.masks import fully_sampled_centre, widest_gap
from tomolens.physics.sense import tuned_cg, varying_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.kspace import KSpace
    from tomolens.core.reconstruction import Check
    from tomolens.physics.sense import Measured

HELD_OUT_SHARE = 0.05
"""Of what was measured outside the centre."""
_SIDES = {"matrix": ("matrix rows", "matrix columns")}
"""Ranges that hold for several numbers."""
_UNITS = {
    "acceleration": "x", "coils": "", "matrix rows": "pixels", "matrix columns": "pixels",
    "noise": "% of bright tissue", "centre": "lines", "widest gap": "% of k-space", "misfit": "of the noise",
    "held-out misfit": "of CG-SENSE's",
}  # fmt: skip
"""The checks; but for the sides of the matrix also the names in a card's ranges."""


def checks_of(values: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> tuple[Check, ...]:
    """A check for each range that a model states, of the matrix one for each side."""
    known = {name: Known(name, values.get(name, math.nan), unit) for name, unit in _UNITS.items()}
    spread = {side: bounds for name, bounds in ranges.items() for side in _SIDES.get(name, (name,))}
    return against_ranges(known, spread)


def measurement(kspace: KSpace, noise: Sequence[float]) -> dict[str, float]:
    """What there is to say of a measurement; ``noise`` of each slice, of which the median counts."""
    masks, _ = distinct(kspace.acquired)
    centres = [span.stop - span.start for mask in masks for span in fully_sampled_centre(mask)]
    _, rows, columns = kspace.shape
    return {
        "acceleration": kspace.acceleration,
        "coils": float(kspace.coils),
        "matrix rows": float(rows),
        "matrix columns": float(columns),
        "noise": 100 * float(np.median(noise)),
        "centre": float(min(centres)),
        "widest gap": 100 * max(widest_gap(mask) for mask in masks),
    }


def distinct(masks: NDArray[np.bool_]) -> tuple[list[NDArray[np.bool_]], list[int]]:
    """The masks that differ, and of each slice which it has."""
    seen: dict[bytes, int] = {}
    which = [seen.setdefault(np.packbits(mask).tobytes(), len(seen)) for mask in masks]
    return [masks[which.index(number)] for number in range(len(seen))], which


def held_out_misfit(
    slices: Iterable[Measured], method: Callable[[Measured], NDArray[np.complex64] | None]
) -> float | None:
    """How well a method foretells what it was not shown, by how well CG-SENSE does; below 1 it does better.

    About 5 % of what was measured outside the centre is taken away, and the image of the rest says what would have been
    measured there. None where nothing can be spared, or there is nothing to foretell.
    """
    shares = []
    for measured in slices:
        places = spared(measured.acquired)
        image = method(measured.without(places)) if places.any() else None
        if image is not None:
            classical = measured.misfit(tuned_cg(measured.without(places)), places)
            shares += [measured.misfit(image, places) / classical] if classical else []
    return float(np.median(shares)) if shares else None


def spared(acquired: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Places to keep from a method: whole lines where lines were measured; the same for the same mask."""
    rng = np.random.default_rng(int(acquired.sum()))
    outside = acquired.copy()
    outside[fully_sampled_centre(acquired)] = False
    chosen = np.zeros_like(acquired)
    axes = varying_axes(acquired)
    if len(axes) == 1:
        across = 1 if axes == (-2,) else 0
        lines = np.flatnonzero(outside.any(axis=across))
        some = rng.choice(lines, min(len(lines), max(1, round(HELD_OUT_SHARE * len(lines)))), replace=False)
        chosen[(some, slice(None)) if across else (slice(None), some)] = True
    elif axes:
        chosen = outside & (rng.random(acquired.shape) < HELD_OUT_SHARE)
    return chosen
