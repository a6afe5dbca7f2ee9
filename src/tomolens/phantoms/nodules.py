"""Nodules: what they are made of, their shapes, and the truth of what was drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tomolens.phantoms.tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.canvas import Canvas

Texture = Literal["solid", "part-solid", "ground-glass", "calcified"]
Place = Literal["parenchyma", "juxtapleural", "juxtavascular"]

_TEXTURES: tuple[Texture, ...] = ("solid", "part-solid", "ground-glass", "calcified")
_PLACES: tuple[Place, ...] = ("parenchyma", "juxtapleural", "juxtavascular")

TEXTURE_HU = {"solid": 35.0, "part-solid": -580.0, "ground-glass": -620.0, "calcified": 420.0}
"""HU of a nodule's body; the core of a part-solid one is as a solid one."""
CORE_SHARE = 0.55
"""Diameter of a part-solid nodule's core as a share of the whole."""


@dataclass(frozen=True)
class Nodule:
    """A nodule as it was drawn.

    ``diameter_mm`` is that of the sphere of the same volume, measured on the voxels, of the part inside the lung;
    ``center_lps_mm`` is the centre of that part.
    """

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    texture: Texture
    place: Place
    hu: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class NoduleWish:
    """A nodule to be drawn somewhere in the lungs."""

    diameter_mm: float
    texture: Texture
    place: Place


def wishes_of(rng: np.random.Generator) -> tuple[NoduleWish, ...]:
    """Draw how many nodules a patient has, and which."""
    count = 1 + int(rng.poisson(2.0))
    return tuple(
        NoduleWish(
            float(np.clip(rng.lognormal(np.log(8.0), 0.42), 4.0, 26.0)),
            _TEXTURES[rng.choice(4, p=[0.62, 0.14, 0.14, 0.10])],
            _PLACES[rng.choice(3, p=[0.5, 0.3, 0.2])],
        )
        for _ in range(count)
    )


@dataclass(frozen=True, eq=False)
class Blob:
    """A lumpy ball in a box of voxels: the share of each voxel that it fills, and how deep each voxel lies in it."""

    box: tuple[slice, slice, slice]
    share: NDArray[np.float32]
    depth: NDArray[np.float32]

    def measured(self, canvas: Canvas, allowed: NDArray[np.float32]) -> tuple[tuple[float, float, float], float]:
        """Centre and diameter of the equivalent sphere of the part where ``allowed`` is 1."""
        weight = (self.share * allowed).astype(np.float64)
        volume = float(weight.sum() * np.prod(canvas.spacing_mm))
        start = np.array([s.start for s in self.box])
        kji = [
            np.average(np.arange(n), weights=weight.sum(axis=tuple(other for other in range(3) if other != axis)))
            for axis, n in enumerate(weight.shape)
        ]
        x, y, z = canvas.grid.to_mm(np.array(kji) + start)
        return (float(x), float(y), float(z)), float((6 * volume / np.pi) ** (1 / 3))


def blob(
    canvas: Canvas, center: NDArray[np.float64], diameter_mm: float, lumpy: float, rng: np.random.Generator
) -> Blob:
    """Draw a lobulated, slightly elongated ball; ``lumpy`` 0 is a ball, 0.15 is clearly lobulated."""
    reach = 0.75 * diameter_mm * (1 + 2 * lumpy) + 2 * canvas.edge_mm
    low = np.clip(np.floor(canvas.grid.to_kji(center - reach)), 0, canvas.grid.shape).astype(int)
    high = np.clip(np.ceil(canvas.grid.to_kji(center + reach)), 0, canvas.grid.shape).astype(int)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    points = [axis[s] - c for axis, s, c in zip(canvas.voxel_axes, box, center[::-1], strict=True)]
    z, y, x = np.meshgrid(*points, indexing="ij")
    offset = np.stack([x, y, z], axis=-1)
    stretch = np.exp(rng.normal(0, 0.06 + lumpy * 0.6, 3))
    offset = offset @ (_turn(rng) * (stretch / stretch.prod() ** (1 / 3)))
    distance = np.linalg.norm(offset, axis=-1)
    towards = offset / np.maximum(distance, 1e-6)[..., None]
    bumps = sum(
        np.cos(towards @ (rng.normal(size=3) * f) + rng.uniform(0, 6.3)) / np.sqrt(f) for f in (1.6, 2.4, 3.2, 4.2, 5.5)
    )
    depth = 0.5 * diameter_mm * (1 + lumpy * bumps) - distance
    share = np.clip(0.5 + depth / (2 * canvas.edge_mm), 0, 1)
    return Blob((box[0], box[1], box[2]), share.astype(np.float32), depth.astype(np.float32))


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.asarray(np.linalg.qr(rng.normal(size=(3, 3)))[0])


def spicules(center: NDArray[np.float64], diameter_mm: float, rng: np.random.Generator) -> Tubes:
    """Draw thin rays that leave a nodule; they do not count towards its diameter."""
    rays = []
    for _ in range(int(rng.integers(5, 11))):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        bend = rng.normal(0, 0.12, 3)
        reach = np.array([0.35, 0.6, rng.uniform(0.75, 1.0)]) * diameter_mm
        path = center + reach[:, None] * (direction + np.array([[0.0], [0.3], [1.0]]) * bend)
        rays.append(Tubes.along(path, np.array([0.9, 0.6, 0.25]) * min(diameter_mm / 10, 1.3)))
    return Tubes.joined(rays)
