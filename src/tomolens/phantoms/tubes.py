"""Curved tubes (ribs, vessels, airways) on a voxel grid, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from tomolens.phantoms.canvas import Canvas

_AT_ONCE = 300_000
"""Voxels evaluated in one go."""


@dataclass(frozen=True, eq=False)
class Tubes:
    """Straight pieces of tube with a round or elliptic cross-section.

    Parameters
    ----------
    start, end
        (n, 3) LPS mm.
    radius
        (n, 2) mm: at start and end.
    flat
        (n,) the second radius as a multiple of the first; 1 is round.
    across
        (n, 3): the direction of the first radius; of no effect where the tube is round.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]
    flat: NDArray[np.float64]
    across: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def along(
        cls,
        points: NDArray[np.float64],
        radius: ArrayLike,
        flat: float = 1.0,
        across: NDArray[np.float64] | tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Tubes:
        """Make one tube through (n, 3) points with one radius, or one a point."""
        points = np.asarray(points, np.float64)
        radii = np.broadcast_to(np.asarray(radius, float), len(points))
        sideways = np.broadcast_to(np.asarray(across, float), points.shape)[:-1]
        ends = np.stack([radii[:-1], radii[1:]], axis=1)
        return cls(points[:-1], points[1:], ends, np.full(len(points) - 1, flat), sideways)

    @classmethod
    def joined(cls, parts: Sequence[Tubes]) -> Tubes:
        """Gather the pieces of several tubes."""
        names = ("start", "end", "radius", "flat", "across")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Tubes:
        return Tubes(self.start[chosen], self.end[chosen], self.radius[chosen], self.flat[chosen], self.across[chosen])

    def thinner(self, wall_mm: float) -> Tubes:
        """Give the tubes inside a wall of this thickness; pieces that are all wall vanish."""
        radius = self.radius - wall_mm
        flat = np.maximum(self.radius * self.flat[:, None] - wall_mm, 0).mean(axis=1) / np.maximum(radius, 1e-6).mean(
            axis=1
        )
        inner = Tubes(self.start, self.end, np.maximum(radius, 0), flat, self.across)
        return inner[(radius.min(axis=1) > 0) & (flat > 0)]


def draw(
    canvas: Canvas,
    image: NDArray[np.float32],
    tubes: Tubes,
    value: float,
    where: NDArray[np.float32] | None = None,
) -> None:
    """Paint tubes of one value into an image of the canvas, with soft edges and partial volume.

    With ``where``, a field on the canvas's lattice, only where it is positive.
    """
    box, cover = coverage(canvas, tubes)
    touched = np.flatnonzero(cover)
    inside, share = np.unravel_index(touched, cover.shape), cover.reshape(-1)[touched]
    if where is not None:
        kji = np.stack(inside, axis=1) + [s.start for s in box]
        share *= canvas.sample(where, canvas.grid.to_mm(kji)) > 0
    part = image[box]
    part[inside] += share * (value - part[inside])


def coverage(canvas: Canvas, tubes: Tubes) -> tuple[tuple[slice, slice, slice], NDArray[np.float32]]:
    """Say which share of each voxel the tubes fill: the box of voxels that they touch, and the share in it.

    A tube thinner than the point spread fills as much of its middle voxel as a blurred disc of its radius would.
    """
    box, low = _box_around(canvas, tubes)
    cover = np.zeros([s.stop - s.start for s in box], np.float32)
    for window in _windows(canvas, tubes, box, low):
        index, share = _evaluate(canvas, tubes[window.tube], window, low, cover.shape)
        np.maximum.at(cover.reshape(-1), index, share)
    return box, cover


def _box_around(canvas: Canvas, tubes: Tubes) -> tuple[tuple[slice, slice, slice], NDArray[np.float64]]:
    """Find the box of voxels that the tubes may touch, and the LPS place of its first voxel."""
    reach = (tubes.radius.max(axis=1) * np.maximum(tubes.flat, 1) + canvas.edge_mm)[:, None]
    ends = np.concatenate([tubes.start - reach, tubes.start + reach, tubes.end - reach, tubes.end + reach])
    kji = canvas.grid.to_kji(ends)
    first = np.clip(np.floor(kji.min(axis=0)), 0, canvas.grid.shape).astype(int)
    last = np.clip(np.ceil(kji.max(axis=0)) + 1, first, canvas.grid.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return (k, j, i), canvas.grid.to_mm(first)


@dataclass(frozen=True, eq=False)
class _Window:
    """Where tubes cross one layer each of voxels, across the axis that they follow most.

    ``tube`` and ``layer`` have one entry a crossing; ``half`` are the half sizes in voxels of the window around it.
    """

    tube: NDArray[np.intp]
    layer: NDArray[np.int64]
    axis: int
    half: tuple[int, int]

    def voxels(self, tubes: Tubes, canvas: Canvas, low: NDArray[np.float64]) -> list[NDArray[np.int64]]:
        """k, j and i of the voxels of every window, (n, 1 or a, 1 or b) each, to be broadcast together."""
        spacing, world = np.asarray(canvas.spacing_mm), 2 - self.axis
        span = tubes.end - tubes.start
        along = np.where(np.abs(span[:, world]) < 1e-9, 1e-9, span[:, world])
        at = np.clip((self.layer * spacing[self.axis] + low[world] - tubes.start[:, world]) / along, 0, 1)
        crossing = np.rint((tubes.start + at[:, None] * span - low)[:, ::-1] / spacing).astype(np.int64)
        a, b = self.half
        windows = [np.arange(-a, a + 1)[None, :, None], np.arange(-b, b + 1)[None, None, :]]
        others = [crossing[:, n, None, None] + windows.pop(0) for n in range(3) if n != self.axis]
        others.insert(self.axis, self.layer[:, None, None])
        return others


def _windows(
    canvas: Canvas, tubes: Tubes, box: tuple[slice, slice, slice], low: NDArray[np.float64]
) -> Iterator[_Window]:
    """Cut the tubes into windows, of one size at a time and not too many."""
    spacing = np.asarray(canvas.spacing_mm)
    start, end = (tubes.start - low)[:, ::-1] / spacing, (tubes.end - low)[:, ::-1] / spacing
    follows = np.abs(tubes.end - tubes.start)[:, ::-1].argmax(axis=1)
    reach = tubes.radius.max(axis=1) * np.maximum(tubes.flat, 1) + canvas.edge_mm
    cap = np.minimum(reach, tubes.radius.min(axis=1) * np.minimum(tubes.flat, 1) + canvas.edge_mm)
    sizes = np.ceil(4 * np.minimum(1.35 * reach, reach + 3.0)).astype(int)
    for axis in range(3):
        last_layer = box[axis].stop - box[axis].start - 1
        for size in np.unique(sizes[follows == axis]):
            chosen = np.flatnonzero((follows == axis) & (sizes == size))
            ends = np.stack([start[chosen, axis], end[chosen, axis]])
            extra = cap[chosen] / spacing[axis]
            first = np.maximum(np.floor(ends.min(axis=0) - extra), 0).astype(int)
            counts = np.maximum(np.minimum(np.ceil(ends.max(axis=0) + extra), last_layer).astype(int) - first + 1, 0)
            tube = np.repeat(chosen, counts)
            layer = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
            a, b = (int(size / (4 * step) + 0.5) for step in np.delete(spacing, axis))
            step = max(1, _AT_ONCE // ((2 * a + 1) * (2 * b + 1)))
            for n in range(0, len(tube), step):
                yield _Window(tube[n : n + step], layer[n : n + step], axis, (a, b))


def _evaluate(
    canvas: Canvas, tubes: Tubes, window: _Window, low: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Evaluate one window a tube: flat voxel indices and the share of each that the tube fills."""
    voxels = window.voxels(tubes, canvas, low)
    index: Any = 0
    inside: Any = True
    for at, count in zip(voxels, shape, strict=True):
        index = index * count + at
        inside = inside & (at >= 0) & (at < count)
    away = [
        at.astype(np.float32) * np.float32(step) + (first - tubes.start[:, n]).astype(np.float32)[:, None, None]
        for at, step, first, n in zip(voxels, canvas.spacing_mm, low[::-1], (2, 1, 0), strict=True)
    ]
    share = _share(canvas.edge_mm, tubes, away[::-1])
    inside = inside & (share > 0)
    return np.broadcast_to(index, share.shape)[inside], share[inside]


def _share(edge_mm: float, tubes: Tubes, away: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Say how much of each voxel its tube fills, from the voxel's x, y and z seen from the tube's start."""
    span = (tubes.end - tubes.start).astype(np.float32)
    length2 = np.maximum((span**2).sum(axis=1), 1e-9)[:, None, None]
    dot = _dot(away, span)
    at = np.clip(dot / length2, 0, 1)
    dot *= -2
    dot += at * length2
    dot *= at
    dot += away[0] ** 2 + away[1] ** 2 + away[2] ** 2
    distance = np.sqrt(np.maximum(dot, 0, out=dot), out=dot)
    radius = (tubes.radius[:, 0, None, None] + at * np.diff(tubes.radius)[:, :, None]).astype(np.float32)
    if (tubes.flat != 1).any():
        distance = _elliptic(tubes, span, away, distance, radius)
    else:
        distance -= radius
    distance *= -1 / (2 * edge_mm)
    distance += 0.5
    return np.clip(distance, 0, 1, out=distance) * _fill_of_thin(edge_mm, tubes)[:, None, None]


def _dot(away: list[NDArray[np.float32]], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y, z = (a * vectors[:, n, None, None] for n, a in enumerate(away))
    return np.asarray(x + y + z)


def _fill_of_thin(edge_mm: float, tubes: Tubes) -> NDArray[np.float32]:
    """Weaken tubes thinner than the point spread as a blurred disc would be; 1 for thick ones."""
    thickness = tubes.radius.mean(axis=1) * np.minimum(tubes.flat, 1)
    blurred = 1 - np.exp(-(thickness**2) / (2 * (0.6 * edge_mm) ** 2))
    return np.asarray(blurred / (0.5 + np.minimum(thickness / (2 * edge_mm), 0.5)), np.float32)


def _elliptic(
    tubes: Tubes,
    span: NDArray[np.float32],
    away: list[NDArray[np.float32]],
    distance: NDArray[np.float32],
    radius: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Approximate the signed distance to tubes of elliptic cross-section, exact on the two radii."""
    towards = span / np.maximum(np.linalg.norm(span, axis=1, keepdims=True), 1e-9)
    across = tubes.across - (tubes.across * towards).sum(axis=1, keepdims=True) * towards
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    first2 = _dot(away, across.astype(np.float32)) ** 2
    rest2 = np.maximum(distance**2 - first2, 0)
    ratio = np.sqrt(first2 + rest2 / np.float32(tubes.flat[:, None, None] ** 2)) / radius
    return np.asarray(np.where(ratio > 1e-6, distance * (1 - 1 / np.maximum(ratio, 1e-6)), -radius), np.float32)
