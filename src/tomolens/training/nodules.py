"""Nodules cut out of scans by their masks and blended into other lungs.

A nodule is taken with one millimetre of its rim, turned, scaled and made denser or thinner; the parenchyma around it is
matched to the new place, and it is blurred as thick slices would blur it. Where it meets chest wall or vessels the
denser of both is kept. Decoys, balls of other lungs without a nodule, are pasted by the same recipe so that a network
cannot learn the seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.random import Generator

    from tomolens.core.volume import Volume

RIM_MM = 1.0
SOFTNESS_MM = 0.9
SCALE = 0.3
"""Sizes are multiplied by exp(uniform(-SCALE, SCALE))."""
SEEN_HU = 60.0
"""A voxel changed by less is not seen as nodule."""
WALL_ABOVE_HU = -400.0
AIR_HU = -1024
SCENE_MM = 56
BALLS_TRIED = 40
"""How often another decoy is tried: most balls hold parenchyma alone, and nothing is seen of them when pasted."""
MIN_DIAMETER_MM = 3.0
MAX_DIAMETER_MM = 32.0
_SOLID = 5
"""How dense a nodule that nobody rated is taken to be where its density is altered: most are solid."""
_THINNED, _CORED, _CALCIFIED = 0.14, 0.08, 0.08
"""Shares of altered nodules: solid ones made ground glass, and part-solid; any calcified."""


@dataclass(frozen=True, eq=False)
class Donor:
    """A nodule with its surroundings, 1 mm, canonical order.

    ``voxels`` is HU, ``mask`` the nodule (0 or 1), both (k, j, i); ``texture`` is LIDC's rating, 1 ground glass to 5
    solid; ``malignancy`` the probability that it is malignant, as its readers or its diagnosis say; each None where
    nobody rated it. ``scene`` is int16 HU, a cube of `SCENE_MM` around the nodule as it was found, with air where
    nothing is known; ``origin`` a hash of what it was cut out of.
    """

    name: str
    voxels: NDArray[np.float32]
    mask: NDArray[np.float32]
    diameter_mm: float
    texture: int | None
    malignancy: float | None
    scene: NDArray[np.int16]
    origin: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether its mask is a size that a detector is asked to find."""
        return MIN_DIAMETER_MM <= self.diameter_mm <= MAX_DIAMETER_MM


def donor_of(
    name: str, voxels: NDArray[Any], mask: NDArray[Any], texture: int | None, malignancy: float | None = None
) -> Donor:
    """Crop a nodule (1 mm, canonical) to its mask and a rim of 5 voxels; the edge is repeated where the image ends."""
    room = 5
    image = np.pad(np.asarray(voxels, np.float32), room, mode="edge")
    padded = np.pad(np.asarray(mask, np.float32), room)
    where = np.argwhere(padded > 0.5)
    low, high = where.min(axis=0) - room, where.max(axis=0) + room + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    diameter = float((padded.sum() * 6 / np.pi) ** (1 / 3))
    return Donor(name, image[box], padded[box], diameter, texture, malignancy, _scene(voxels, mask))


def _scene(voxels: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.int16]:
    half = SCENE_MM // 2
    center = np.round(np.argwhere(np.asarray(mask) > 0.5).mean(axis=0)).astype(int)
    scene = np.full((SCENE_MM,) * 3, AIR_HU, np.int16)
    low, high = (np.clip(center + side * half, 0, np.shape(voxels)) for side in (-1, 1))
    there = tuple(slice(a, b) for a, b in zip(low - center + half, high - center + half, strict=True))
    scene[there] = np.clip(voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], AIR_HU, 3071)
    return scene


@dataclass(frozen=True, eq=False)
class Piece:
    """Something ready to be pasted: HU above parenchyma, opacity 0-1 and solid mask of one cube with an odd edge.

    ``texture`` is LIDC's rating of it as it is now, None of what nobody rated or is no nodule; ``scale`` how much
    larger it became.
    """

    voxels: NDArray[np.float32]
    alpha: NDArray[np.float32]
    solid: NDArray[np.bool_]
    texture: int | None = None
    scale: float = 1.0

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere as large as the solid mask."""
        return float((self.solid.sum() * 6 / np.pi) ** (1 / 3))


@dataclass(frozen=True)
class Pasted:
    """Where a pasted nodule can be seen: centre in voxels, and diameter of the sphere as large as what is seen."""

    center_kji: tuple[float, float, float]
    diameter_mm: float


def turned(donor: Donor, rng: Generator, *, altered: bool = True) -> Piece:
    """A random rotation and reflection of a nodule; ``altered`` also varies its size and density."""
    scale = float(np.exp(rng.uniform(-SCALE, SCALE))) if altered else 1.0
    scale = float(np.clip(scale, MIN_DIAMETER_MM / donor.diameter_mm, MAX_DIAMETER_MM / donor.diameter_mm))
    rotation = _rotation(rng)
    half = int(np.ceil(max(donor.mask.shape) * scale * 0.5)) + 3
    center = (np.asarray(donor.mask.shape) - 1) / 2
    inverse = rotation.T / scale
    offset = center - inverse @ np.full(3, half)
    shape = (2 * half + 1, 2 * half + 1, 2 * half + 1)
    mask = ndimage.affine_transform(donor.mask, inverse, offset, shape, order=1)
    voxels = ndimage.affine_transform(donor.voxels, inverse, offset, shape, order=1, mode="nearest")
    solid = mask > 0.5
    if solid.sum() < 8:
        solid = mask > 0.25 * float(mask.max())
    ness, own = _nodule_ness(voxels, solid)
    density, texture = _density(own, solid, donor.texture or _SOLID, rng) if altered else (own, donor.texture)
    rated = None if donor.texture is None else texture
    return Piece(np.asarray(ness * density, np.float32), _opacity(solid), solid, rated, scale)


def _opacity(solid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 inside and on the rim, falling softly."""
    rimmed = ndimage.distance_transform_edt(~solid) <= RIM_MM
    return np.asarray(ndimage.gaussian_filter(rimmed.astype(np.float32), SOFTNESS_MM))


def _nodule_ness(voxels: NDArray[np.float32], solid: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """0 (parenchyma) to 1 (the nodule where it is densest), and how many HU lie between the two."""
    around = ndimage.binary_dilation(solid, iterations=4) & ~ndimage.binary_dilation(solid, iterations=2)
    lung = float(np.clip(np.percentile(voxels[around], 25), -950, -700))
    own = max(float(np.percentile(voxels[solid], 85)) - lung, 100.0)
    return np.clip((voxels - lung) / own, -0.15, 1.6), own


def _density(own: float, solid: NDArray[np.bool_], was: int, rng: Generator) -> tuple[float | NDArray[np.float64], int]:
    """HU above parenchyma and texture rating: mostly as it ``was``, sometimes ground glass, part-solid or calcified.

    A part-solid nodule's HU are a map that falls outside its core.
    """
    kind, thin = rng.random(), float(rng.uniform(150, 420))
    if was >= 4 and kind < _THINNED:
        return thin, 1
    if was >= 4 and kind < _THINNED + _CORED:
        depth = ndimage.distance_transform_edt(solid)
        core = float(depth.max()) * rng.uniform(0.35, 0.75)
        return np.asarray(thin + max(own - thin, 0.0) / (1 + np.exp((core - depth) / 0.6))), 3
    if kind > 1 - _CALCIFIED:
        return float(rng.uniform(1000, 1500)), 5
    return float(own * rng.uniform(0.85, 1.15)), was


def altered_textures(was: int) -> Mapping[int, float]:
    """How likely each rating of the texture is after a nodule rated so was altered."""
    made = {1: _THINNED, 3: _CORED} if was >= 4 else {}
    made[5] = _CALCIFIED
    return {**made, was: made.get(was, 0.0) + 1 - sum(made.values())}


def _rotation(rng: Generator) -> NDArray[np.float64]:
    """A random rotation with a random reflection."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def decoy(voxels: NDArray[np.int16], center: NDArray[Any], rng: Generator) -> Piece | None:
    """A ball of another lung, vessels and all, as HU above its parenchyma; None where the ball leaves the lung."""
    radius = float(rng.uniform(2.0, 9.0))
    half = int(np.ceil(radius)) + 4
    low = np.asarray(center, int) - half
    if (low < 0).any() or (low + 2 * half + 1 > voxels.shape).any():
        return None
    cube = voxels[tuple(slice(a, a + 2 * half + 1) for a in low)].astype(np.float32)
    ball = np.linalg.norm(np.indices(cube.shape) - half, axis=0) <= radius
    lung = float(np.clip(np.percentile(cube, 30), -950, -700))
    return Piece(cube - lung, _opacity(ball), ball)


def paste(
    target: NDArray[np.float32], piece: Piece, at_kji: NDArray[Any], thickness_mm: float, rng: Generator
) -> Pasted | None:
    """Blend a piece into (k, j, i) HU, in place, its cube's middle at the voxel ``at_kji``.

    What reaches beyond the target is cut. Where less than a third of the piece can be seen (it drowned in the chest
    wall or in a vessel) nothing is changed and None is returned.
    """
    half = piece.alpha.shape[0] // 2
    low = np.asarray(at_kji, int) - half
    here = tuple(slice(max(a, 0), min(a + 2 * half + 1, n)) for a, n in zip(low, target.shape, strict=True))
    there = tuple(slice(s.start - a, s.stop - a) for s, a in zip(here, low, strict=True))
    old = target[here]
    new = _blended(old, piece, there, thickness_mm, keep_denser=rng.random() < 0.5)
    seen = piece.solid[there] & (np.abs(new - old) > SEEN_HU)
    if seen.sum() < max(4, piece.solid.sum() / 3):
        return None
    target[here] = new
    k, j, i = np.argwhere(seen).mean(axis=0) + [s.start for s in here]
    return Pasted((float(k), float(j), float(i)), float((seen.sum() * 6 / np.pi) ** (1 / 3)))


def _blended(
    old: NDArray[np.float32], piece: Piece, there: tuple[slice, ...], thickness_mm: float, keep_denser: bool
) -> NDArray[np.float32]:
    """The piece over ``old``, blurred as slices of that thickness would; the chest wall always stays."""
    lung = float(np.clip(np.percentile(old, 25), -950, -700))
    sigma = 0.42 * np.sqrt(max(thickness_mm**2 - 1.0, 0.0))
    new, alpha = piece.voxels, piece.alpha
    if sigma > 0.3:
        new, alpha = (ndimage.gaussian_filter1d(x, sigma, axis=0) for x in (new, alpha))
    kept = old if keep_denser else np.where(old > WALL_ABOVE_HU, old, np.float32(-2000))
    return np.asarray(old + alpha[there] * (np.maximum(new[there] + lung, kept) - old), np.float32)


def donor_from_volume(
    name: str, image: Volume, mask: Volume, texture: int | None, malignancy: float | None = None
) -> Donor:
    """A donor from a nodule volume and its mask on one grid, at any spacing."""
    from tomolens.models.tensors import isotropic

    voxels, cut = isotropic(image.canonical()), isotropic(mask.canonical())
    return donor_of(name, voxels.voxels, cut.voxels, texture, malignancy)
