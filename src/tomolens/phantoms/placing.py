"""Where nodules are put into a painted chest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from tomolens.phantoms.look_alikes import LookAlike, points_inside
from tomolens.phantoms.nodules import CORE_SHARE, TEXTURE_HU, Blob, Nodule, NoduleWish, blob, spicules
from tomolens.phantoms.tubes import draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tomolens.phantoms.anatomy import Anatomy
    from tomolens.phantoms.canvas import Canvas

    Image = NDArray[np.float32]

_APART_MM = 22.0
"""Between the surface of a nodule and the centre of the next."""


def add_nodules(
    canvas: Canvas, anatomy: Anatomy, wishes: Sequence[NoduleWish], taken: Sequence[LookAlike], rng: np.random.Generator
) -> tuple[Nodule, ...]:
    """Draw the nodules wished for, largest first, each where its place asks for, and say what was drawn."""
    sites = _Sites(canvas, anatomy, rng)
    for other in taken:
        sites.close(np.asarray(other.center_lps_mm), other.size_mm / 2)
    placed = ((wish, sites.take(wish)) for wish in sorted(wishes, key=lambda wish: -wish.diameter_mm))
    return tuple(_draw(canvas, anatomy, wish, center, rng) for wish, center in placed if center is not None)


def _draw(
    canvas: Canvas, anatomy: Anatomy, wish: NoduleWish, center: NDArray[np.float64], rng: np.random.Generator
) -> Nodule:
    lungs = anatomy.thorax.lungs
    lumpy = {"ground-glass": 0.13, "calcified": 0.04}.get(wish.texture, rng.uniform(0.07, 0.16))
    hu = TEXTURE_HU[wish.texture] + float(rng.normal(0, 15))
    if wish.texture == "solid" and wish.diameter_mm > 7 and rng.random() < 0.5:
        draw(canvas, anatomy.image, spicules(center, wish.diameter_mm, rng), hu - 60, -lungs)
    body = blob(canvas, center, wish.diameter_mm, lumpy, rng)
    allowed = canvas.coverage(canvas.fine(lungs, body.box))
    _fill(anatomy.image, body, allowed, hu, brightest=wish.texture in ("part-solid", "ground-glass"))
    if wish.texture == "part-solid":
        core = blob(canvas, center, wish.diameter_mm * CORE_SHARE, 0.1, rng)
        _fill(anatomy.image, core, canvas.coverage(canvas.fine(lungs, core.box)), TEXTURE_HU["solid"])
    where, diameter = body.measured(canvas, allowed)
    return Nodule(where, diameter, wish.texture, wish.place, round(hu, 1))


def _fill(image: Image, body: Blob, allowed: Image, hu: float, brightest: bool = False) -> None:
    """Blend a body into the lung; vessels show through ground glass."""
    part = image[body.box]
    step = body.share * allowed * (hu - part)
    part += np.maximum(step, 0) if brightest else step


class _Sites:
    """Places in the lungs that are still free."""

    def __init__(self, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
        points = points_inside(canvas, anatomy.thorax.lungs, rng)
        self._points = points[canvas.grid.contains(points - 12) & canvas.grid.contains(points + 12)]
        self._depth = -canvas.sample(anatomy.thorax.lungs, self._points)
        widest = maximum_filter(-anatomy.thorax.lungs, size=round(28 / canvas.pitch_mm))
        self._roomy = canvas.sample(widest, self._points) > 14
        self._to_wall = -canvas.sample(anatomy.thorax.cavity, self._points)
        tubes = anatomy.trees.vessels
        self._vessels = tubes[tubes.radius.mean(axis=1) > 0.7]
        self._middles = (self._vessels.start + self._vessels.end) / 2
        self._tree = cKDTree(self._middles)
        self._free = np.ones(len(self._points), bool)
        self._canvas = canvas
        self._fissures = anatomy.thorax.fissures
        self._rng = rng
        self._side = float(rng.choice([-1.0, 1.0]))

    def take(self, wish: NoduleWish) -> NDArray[np.float64] | None:
        """Choose a place for a nodule and close its surroundings; None where there is none left."""
        radius = wish.diameter_mm / 2
        if wish.place == "juxtapleural":
            at_wall = (np.abs(self._depth - 0.55 * radius) < 1.2) & (np.abs(self._to_wall - self._depth) < 1.5)
            fits = self._free & self._roomy & at_wall
        else:
            fits = self._free & (self._depth > radius + 5)
        other_lung = fits & (self._points[:, 0] * self._side < 0)
        chosen = np.flatnonzero(other_lung if other_lung.any() else fits)
        if not len(chosen):
            return None
        few = self._points[self._rng.choice(chosen, min(12, len(chosen)), replace=False)]
        center = self._beside_vessel(few, radius) if wish.place == "juxtavascular" else self._clear(few)
        self.close(center, radius)
        self._side = float(np.sign(center[0]))
        return center

    def close(self, center: NDArray[np.float64], radius: float) -> None:
        """Let nothing else be put near a place."""
        self._free &= np.linalg.norm(self._points - center, axis=1) > _APART_MM + radius

    def _clear(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Choose the point farthest from vessels and fissures."""
        clear = np.asarray(self._tree.query(points)[0])
        for field in self._fissures:
            clear = np.minimum(clear, np.abs(self._canvas.sample(field, points)))
        return np.asarray(points[int(np.argmax(clear))])

    def _beside_vessel(self, points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        """Touch the nearest vessel, of the points' nearest the one whose radius is closest to 1.7 mm."""
        near = np.asarray(self._tree.query(points)[1])
        size = self._vessels.radius.mean(axis=1)[near]
        pick = int(np.abs(size - 1.7).argmin())
        vessel = self._middles[near[pick]]
        away = points[pick] - vessel
        return np.asarray(vessel + away / max(float(np.linalg.norm(away)), 1e-6) * (radius * 0.8 + size[pick]))
