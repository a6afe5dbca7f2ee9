"""Signed distances of simple bodies, and how they are joined; mm, negative inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import PchipInterpolator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Field = NDArray[Any]
    """A float32 value at each point; for a body the signed distance to its surface in mm, negative inside."""
    Points = tuple[Field, Field, Field]


def ellipsoid(
    points: Points, center: Sequence[float], radii: Sequence[float], turn: NDArray[np.float64] | None = None
) -> Field:
    """Approximate the distance to an ellipsoid; the columns of ``turn`` are the directions of its radii."""
    moved = [p - np.float32(c) for p, c in zip(points, center, strict=True)]
    if turn is not None:
        t = turn.astype(np.float32)
        moved = [sum(moved[n] * t[n, axis] for n in range(3)) for axis in range(3)]
    one = np.sqrt(sum((m / np.float32(r)) ** 2 for m, r in zip(moved, radii, strict=True)))
    two = np.sqrt(sum((m / np.float32(r * r)) ** 2 for m, r in zip(moved, radii, strict=True)))
    return np.asarray(one * (one - 1) / np.maximum(two, 1e-6), np.float32)


def tube(points: Points, path: NDArray[np.float64], radius: ArrayLike) -> Field:
    """Find the distance to a round tube through (n, 3) points."""
    radii = np.broadcast_to(np.asarray(radius, np.float32), len(path))
    best = np.full(points[0].shape, np.inf, np.float32)
    for start, end, r0, r1 in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        span = (end - start).astype(np.float32)
        moved = [p - np.float32(s) for p, s in zip(points, start, strict=True)]
        at = np.clip(sum(m * s for m, s in zip(moved, span, strict=True)) / np.float32(span @ span), 0, 1)
        away = np.sqrt(sum((m - at * s) ** 2 for m, s in zip(moved, span, strict=True)))
        np.minimum(best, away - (r0 + at * (r1 - r0)), out=best)
    return best


def joined(first: Field, second: Field, round_mm: float = 0.0) -> Field:
    """Join two bodies; the crease between them is filled over about ``round_mm``."""
    if not round_mm:
        return np.minimum(first, second)
    h = np.maximum(round_mm - np.abs(first - second), 0) / round_mm
    return np.asarray(np.minimum(first, second) - h * h * (round_mm / 4), np.float32)


def common(first: Field, second: Field, round_mm: float = 0.0) -> Field:
    """Keep what lies in both bodies; the edge is rounded over about ``round_mm``."""
    return -joined(-first, -second, round_mm)


def without(first: Field, second: Field, round_mm: float = 0.0) -> Field:
    """Keep what lies in the first body and not in the second."""
    return common(first, -second, round_mm)


def along(z: Field, knots: Sequence[tuple[float, float]]) -> Field:
    """Interpolate (z, value) knots smoothly and without overshoot; constant beyond the ends."""
    at, values = zip(*sorted(knots), strict=True)
    table = np.linspace(at[0], at[-1], 600)
    return np.interp(z, table, PchipInterpolator(at, values)(table)).astype(np.float32)


def as_distance(field: Field, pitch_mm: float) -> Field:
    """Turn any function that is negative inside a body into a distance, true near the surface."""
    slope = np.sqrt(sum(g * g for g in np.gradient(field, np.float32(pitch_mm))))
    return np.asarray(np.clip(field / np.maximum(slope, 0.15), -60, 60), np.float32)


def waves(points: Points, rng: np.random.Generator, length_mm: float, count: int = 7) -> Field:
    """Draw a smooth random field of unit spread whose hills are about ``length_mm`` apart."""
    field = np.zeros(points[0].shape, np.float32)
    for _ in range(count):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / (length_mm * rng.uniform(0.7, 1.4))
        field += np.sin(sum(p * np.float32(w) for p, w in zip(points, wave, strict=True)) + rng.uniform(0, 6.28))
    return field * np.float32(np.sqrt(2 / count))
