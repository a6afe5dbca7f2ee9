"""Curved tubes (ribs, vessels, airways) on a voxel grid, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tomolens.phantoms.canvas import Canvas

_AT_ONCE = 1_000_000
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
        radius: NDArray[np.float64] | float,
        flat: float = 1.0,
        across: NDArray[np.float64] | tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Tubes:
        """Make one tube through (n, 3) points with one radius, or one a point."""
        points = np.asarray(points, np.float64)
        radius = np.broadcast_to(np.asarray(radius, float), len(points))
        sideways = np.broadcast_to(np.asarray(across, float), points.shape)[:-1]
        ends = np.stack([radius[:-1], radius[1:]], axis=1)
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
    inside = np.nonzero(cover)
    share = cover[inside]
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
    for chosen, layer, axis, size in _windows(canvas, tubes, box, low):
        index, share = _evaluate(canvas, tubes[chosen], layer, axis, size, low, cover.shape)
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


def _windows(
    canvas: Canvas, tubes: Tubes, box: tuple[slice, slice, slice], low: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], int, tuple[int, int]]]:
    """Cut the tubes into windows: which tube, its layer along the axis that it follows most, that axis, half sizes."""
    spacing = np.asarray(canvas.spacing_mm)
    start, end = (tubes.start - low)[:, ::-1] / spacing, (tubes.end - low)[:, ::-1] / spacing
    follows = np.abs(tubes.end - tubes.start)[:, ::-1].argmax(axis=1)
    reach = tubes.radius.max(axis=1) * np.maximum(tubes.flat, 1) + canvas.edge_mm
    sizes = np.ceil(4 * np.minimum(1.35 * reach, reach + 3.0)).astype(int)
    for axis in range(3):
        for size in np.unique(sizes[follows == axis]):
            chosen = np.flatnonzero((follows == axis) & (sizes == size))
            ends = np.stack([start[chosen, axis], end[chosen, axis]])
            extra = (
                np.minimum(
                    reach[chosen], tubes.radius[chosen].min(axis=1) * np.minimum(tubes.flat[chosen], 1) + canvas.edge_mm
                )
                / spacing[axis]
            )
            first = np.maximum(np.floor(ends.min(axis=0) - extra), 0).astype(int)
            last = np.minimum(np.ceil(ends.max(axis=0) + extra), box[axis].stop - box[axis].start - 1).astype(int)
            counts = np.maximum(last - first + 1, 0)
            which = np.repeat(chosen, counts)
            layer = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
            a, b = (int(size / (4 * step) + 0.5) for step in np.delete(spacing, axis))
            step = max(1, _AT_ONCE // ((2 * a + 1) * (2 * b + 1)))
            for n in range(0, len(which), step):
                yield which[n : n + step], layer[n : n + step], axis, (a, b)


def _evaluate(
    canvas: Canvas,
    tubes: Tubes,
    layer: NDArray[np.int64],
    axis: int,
    size: tuple[int, int],
    low: NDArray[np.float64],
    shape: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Evaluate one window a tube: flat voxel indices and the share of each that the tube fills."""
    spacing = np.asarray(canvas.spacing_mm)
    others = [a for a in range(3) if a != axis]
    span = tubes.end - tubes.start
    along = np.where(np.abs(span[:, 2 - axis]) < 1e-9, 1e-9, span[:, 2 - axis])
    at = np.clip(((layer * spacing[axis] + low[2 - axis]) - tubes.start[:, 2 - axis]) / along, 0, 1)
    crossing = (tubes.start + at[:, None] * span - low)[:, ::-1] / spacing
    voxel = np.empty((len(layer), 3, 2 * size[0] + 1, 2 * size[1] + 1), np.int32)
    voxel[:, axis] = layer[:, None, None]
    voxel[:, others[0]] = np.round(crossing[:, others[0], None, None]) + np.arange(-size[0], size[0] + 1)[:, None]
    voxel[:, others[1]] = np.round(crossing[:, others[1], None, None]) + np.arange(-size[1], size[1] + 1)
    share = _share(canvas, tubes, voxel, low)
    inside = share > 0
    for n, limit in zip(range(3), shape, strict=True):
        inside &= (voxel[:, n] >= 0) & (voxel[:, n] < limit)
    k, j, i = (voxel[:, n][inside].astype(np.int64) for n in range(3))
    return (k * shape[1] + j) * shape[2] + i, share[inside]


def _share(canvas: Canvas, tubes: Tubes, voxel: NDArray[np.int32], low: NDArray[np.float64]) -> NDArray[np.float32]:
    """Say how much of each voxel its tube fills."""
    span = (tubes.end - tubes.start).astype(np.float32)
    length2 = np.maximum((span**2).sum(axis=1), 1e-9)[:, None, None]
    offset = (low - tubes.start).astype(np.float32)
    w = [voxel[:, 2 - n] * np.float32(canvas.spacing_mm[2 - n]) + offset[:, n, None, None] for n in range(3)]
    at = np.clip(sum(w[n] * span[:, n, None, None] for n in range(3)) / length2, 0, 1)
    for n in range(3):
        w[n] -= at * span[:, n, None, None]
    radius = (tubes.radius[:, 0, None, None] + at * np.diff(tubes.radius)[:, :, None]).astype(np.float32)
    away = np.sqrt(w[0] ** 2 + w[1] ** 2 + w[2] ** 2)
    distance = away - radius
    if (tubes.flat != 1).any():
        distance = _elliptic(tubes, span, w, away, radius)
    thickness = radius * np.minimum(tubes.flat, 1).astype(np.float32)[:, None, None]
    spread = 0.6 * canvas.edge_mm
    filled = (1 - np.exp(-(thickness**2) / (2 * spread**2))) / (0.5 + np.minimum(thickness / (2 * canvas.edge_mm), 0.5))
    return np.asarray(np.clip(0.5 - distance / (2 * canvas.edge_mm), 0, 1) * filled, np.float32)


def _elliptic(
    tubes: Tubes,
    span: NDArray[np.float32],
    w: list[NDArray[np.float32]],
    away: NDArray[np.float32],
    radius: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Approximate the signed distance to tubes of elliptic cross-section, exact on the two radii."""
    towards = span / np.maximum(np.linalg.norm(span, axis=1, keepdims=True), 1e-9)
    across = tubes.across - (tubes.across * towards).sum(axis=1, keepdims=True) * towards
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    first = sum(w[n] * across[:, n, None, None] for n in range(3)) / radius
    rest2 = np.maximum(away**2 - (first * radius) ** 2, 0)
    ratio = np.sqrt(first**2 + rest2 / (radius * tubes.flat[:, None, None]) ** 2)
    return np.asarray(np.where(ratio > 1e-6, away * (1 - 1 / np.maximum(ratio, 1e-6)), -radius), np.float32)
