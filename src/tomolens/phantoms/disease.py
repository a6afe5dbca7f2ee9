"""Where nodules and look-alikes are put into a painted chest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from tomolens.phantoms.bones import first_rib_end
from tomolens.phantoms.nodules import CORE_SHARE, TEXTURE_HU, Blob, LookAlike, Nodule, NoduleWish, blob, spicules
from tomolens.phantoms.tubes import Tubes, draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tomolens.phantoms.anatomy import Anatomy
    from tomolens.phantoms.build import Build
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
        points = _points_inside(canvas, anatomy.thorax.lungs, rng)
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


def _points_inside(canvas: Canvas, field: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """One random point near each lattice point where a field is negative, LPS mm, in the field of view."""
    inside = np.argwhere(field < 0)
    low = np.array([axis[0] for axis in canvas.lattice_axes])
    points = (low + inside * canvas.pitch_mm)[:, ::-1] + rng.uniform(-1.5, 1.5, (len(inside), 3))
    return np.asarray(points[canvas.grid.contains(points)])


def add_scars(build: Build, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Draw thin bands that run inwards from the pleura."""
    lungs = anatomy.thorax.lungs
    rim = _points_inside(canvas, np.abs(lungs + 6) - 3, rng)
    for start in rim[rng.choice(len(rim), min(build.scars, len(rim)), replace=False)]:
        band = _wandering(start, _inwards(canvas, lungs, start), rng.uniform(8, 26), rng)
        draw(canvas, anatomy.image, Tubes.along(band, rng.uniform(2.0, 5.0), 0.2, rng.normal(size=3)), -180.0, -lungs)


def _wandering(
    start: NDArray[np.float64], towards: NDArray[np.float64], length: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    steps = towards * length / 5 + rng.normal(0, length / 16, (5, 3))
    return np.asarray(start - 4 * towards + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]))


def _inwards(canvas: Canvas, field: NDArray[np.float32], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction in which a field falls fastest."""
    around = np.concatenate([point + 2 * np.eye(3), point - 2 * np.eye(3)])
    values = canvas.sample(field, around)
    slope = values[3:] - values[:3]
    return np.asarray(slope / max(float(np.linalg.norm(slope)), 1e-6))


def add_look_alikes(build: Build, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> tuple[LookAlike, ...]:
    """Draw what may be mistaken for a nodule, and say what was drawn."""
    shown = (mark for mark in _look_alikes(build, canvas, anatomy, rng))
    return tuple(mark for mark in shown if canvas.grid.contains(mark.center_lps_mm))


def _look_alikes(build: Build, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Iterator[LookAlike]:
    thorax, image = anatomy.thorax, anatomy.image
    side = 1 if rng.random() < 0.5 else -1

    end = first_rib_end(build, side)
    spur = end + np.array([[0, 0, 0], [0, 7, -6]])
    draw(canvas, image, Tubes.along(spur, [5.5, 4.0]), 480.0)
    yield _mark("calcified rib end", spur.mean(axis=0), 12.0)

    rim = _points_inside(canvas, np.maximum(np.abs(thorax.cavity + 1) - 2, thorax.lungs - 3), rng)
    rim = rim[np.abs(rim[:, 2] - 40) < 70]
    if len(rim):
        point = rim[rng.integers(len(rim))]
        draw(canvas, image, _flat_on(canvas, thorax.cavity, point, 10.0, 7.5, 0.36, rng), 70.0)
        yield _mark("pleural plaque", point, 16.0)

    fissure = np.maximum(np.abs(thorax.right_fissure) - 1.5, thorax.right_lung + 12)
    near = _points_inside(canvas, fissure, rng)
    if len(near):
        point = near[rng.integers(len(near))]
        draw(canvas, image, _flat_on(canvas, thorax.right_fissure, point, 6.0, 5.0, 0.25, rng), -60.0)
        yield _mark("thickened fissure", point, 11.0)

    lung = thorax.left_lung if side < 0 else thorax.right_lung
    rim = _points_inside(canvas, np.abs(lung + 4) - 2, rng)
    top = rim[np.argsort(-rim[:, 2])[: max(len(rim) // 40, 1)]]
    point = top[rng.integers(len(top))]
    for _ in range(4):
        band = _wandering(point, _inwards(canvas, lung, point), rng.uniform(8, 16), rng)
        draw(canvas, image, Tubes.along(band, rng.uniform(1.5, 3.0), 0.35, rng.normal(size=3)), -40.0, -lung)
    yield _mark("apical scar", point, 14.0)


def _mark(kind: str, point: NDArray[np.float64], size_mm: float) -> LookAlike:
    x, y, z = (round(float(v), 2) for v in point)
    return LookAlike((x, y, z), size_mm, kind)


def _flat_on(
    canvas: Canvas,
    field: NDArray[np.float32],
    point: NDArray[np.float64],
    length: float,
    radius: float,
    flat: float,
    rng: np.random.Generator,
) -> Tubes:
    """A flat lens that lies in the surface of a field."""
    normal = _inwards(canvas, field, point)
    first = np.cross(normal, rng.normal(size=3))
    first /= np.linalg.norm(first)
    ends = point + np.outer([-0.5, 0, 0.5], first) * length
    return Tubes.along(ends, [radius * 0.75, radius, radius * 0.75], flat, np.cross(normal, first))
