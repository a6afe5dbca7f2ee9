"""Where nodules and look-alikes are put into a painted chest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from tomolens.phantoms.nodules import CORE_SHARE, TEXTURE_HU, Blob, LookAlike, Nodule, NoduleWish, blob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tomolens.phantoms.anatomy import Anatomy
    from tomolens.phantoms.canvas import Canvas

    Image = NDArray[np.float32]

_APART_MM = 22.0
"""Nodules keep this distance between their centres."""


def add_nodules(
    canvas: Canvas, anatomy: Anatomy, wishes: Sequence[NoduleWish], rng: np.random.Generator
) -> tuple[Nodule, ...]:
    """Draw the nodules wished for, each where its place asks for, and say what was drawn."""
    sites = _Sites(canvas, anatomy, rng)
    drawn = []
    for wish in wishes:
        center = sites.take(wish)
        if center is not None:
            drawn.append(_draw(canvas, anatomy, wish, center, rng))
    return tuple(drawn)


def _draw(
    canvas: Canvas, anatomy: Anatomy, wish: NoduleWish, center: NDArray[np.float64], rng: np.random.Generator
) -> Nodule:
    lumpy = {"ground-glass": 0.13, "calcified": 0.04}.get(wish.texture, rng.uniform(0.05, 0.13))
    body = blob(canvas, center, wish.diameter_mm, lumpy, rng)
    allowed = canvas.coverage(canvas.fine(anatomy.thorax.lungs, body.box))
    hu = TEXTURE_HU[wish.texture] + float(rng.normal(0, 15))
    _fill(anatomy.image, body, allowed, hu, brightest=wish.texture in ("part-solid", "ground-glass"))
    if wish.texture == "part-solid":
        core = blob(canvas, center, wish.diameter_mm * CORE_SHARE, 0.1, rng)
        _fill(anatomy.image, core, canvas.coverage(canvas.fine(anatomy.thorax.lungs, core.box)), TEXTURE_HU["solid"])
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
        lungs = anatomy.thorax.lungs
        axes = canvas.lattice_axes
        inside = np.argwhere(lungs < 0)
        low = np.array([axis[0] for axis in axes])
        points = (low + inside * canvas.pitch_mm)[:, ::-1] + rng.uniform(-1.5, 1.5, (len(inside), 3))
        shown = canvas.grid.contains(points) & canvas.grid.contains(points - 12) & canvas.grid.contains(points + 12)
        self._points = points[shown]
        self._depth = -canvas.sample(lungs, self._points)
        self._to_wall = -canvas.sample(anatomy.thorax.cavity, self._points)
        tubes = anatomy.trees.vessels
        large = tubes.radius.mean(axis=1) > 0.7
        self._vessels = tubes[large]
        self._tree = cKDTree((self._vessels.start + self._vessels.end) / 2)
        self._free = np.ones(len(self._points), bool)
        self._rng = rng

    def take(self, wish: NoduleWish) -> NDArray[np.float64] | None:
        """Choose a place for a nodule and close its surroundings; None where there is none left."""
        radius = wish.diameter_mm / 2
        if wish.place == "juxtapleural":
            fits = (
                self._free & (np.abs(self._depth - 0.55 * radius) < 1.2) & (np.abs(self._to_wall - self._depth) < 1.5)
            )
        else:
            fits = self._free & (self._depth > radius + 5)
        chosen = np.flatnonzero(fits)
        if not len(chosen):
            return None
        few = self._points[self._rng.choice(chosen, min(40, len(chosen)), replace=False)]
        center = self._beside_vessel(few, radius) if wish.place == "juxtavascular" else self._clear_of_vessels(few)
        self._free &= np.linalg.norm(self._points - center, axis=1) > _APART_MM + radius
        return center

    def _clear_of_vessels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(points[self._tree.query(points)[0].argmax()])

    def _beside_vessel(self, points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        """Touch the nearest vessel of 1.2 to 2.5 mm radius."""
        near = self._tree.query(points)[1]
        size = self._vessels.radius.mean(axis=1)[near]
        pick = int(np.abs(size - 1.7).argmin())
        vessel = (self._vessels.start[near[pick]] + self._vessels.end[near[pick]]) / 2
        away = points[pick] - vessel
        return np.asarray(vessel + away / max(float(np.linalg.norm(away)), 1e-6) * (radius * 0.8 + size[pick]))


def add_look_alikes(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> tuple[LookAlike, ...]:
    """Draw what may be mistaken for a nodule."""
    return ()
