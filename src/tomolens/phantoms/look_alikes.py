"""What may be mistaken for a nodule: scars, plaques, thick fissures, bone. The vessels are drawn elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.phantoms.bones import first_rib_end
from tomolens.phantoms.tubes import Tubes, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tomolens.phantoms.anatomy import Anatomy
    from tomolens.phantoms.build import Build
    from tomolens.phantoms.canvas import Canvas
    from tomolens.phantoms.shapes import Field


@dataclass(frozen=True)
class LookAlike:
    """Something that is not a nodule and may be taken for one."""

    center_lps_mm: tuple[float, float, float]
    size_mm: float
    kind: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def add_scars(build: Build, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> tuple[LookAlike, ...]:
    """Draw thin bands that run inwards from the pleura, and say where."""
    lungs, drawn = anatomy.thorax.lungs, []
    rim = points_inside(canvas, np.abs(lungs + 6) - 3, rng)
    for start in rim[rng.choice(len(rim), min(build.scars, len(rim)), replace=False)]:
        length = rng.uniform(8, 26)
        band = _wandering(start, _inwards(canvas, lungs, start), length, rng)
        draw(canvas, anatomy.image, Tubes.along(band, rng.uniform(2.0, 5.0), 0.2, rng.normal(size=3)), -180.0, -lungs)
        drawn.append(_mark("scar", band.mean(axis=0), round(float(length), 1)))
    return tuple(drawn)


def add_look_alikes(build: Build, canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> tuple[LookAlike, ...]:
    """Draw what may be mistaken for a nodule, and say what was drawn in the field of view."""
    side = 1 if rng.random() < 0.5 else -1
    drawn = [
        *_rib_end(build, canvas, anatomy, side),
        *_plaque(canvas, anatomy, rng),
        *_thick_fissure(canvas, anatomy, rng),
        *_apical_scar(canvas, anatomy, -side, rng),
    ]
    return tuple(mark for mark in drawn if canvas.grid.contains(mark.center_lps_mm))


def _rib_end(build: Build, canvas: Canvas, anatomy: Anatomy, side: int) -> Iterator[LookAlike]:
    """The calcified end of the first rib, which juts into the lung."""
    end = first_rib_end(build, side)
    spur = end + np.array([[0, 0, 0], [0, 7, -6]])
    draw(canvas, anatomy.image, Tubes.along(spur, [5.5, 4.0]), 480.0)
    yield _mark("calcified rib end", spur.mean(axis=0), 12.0)


def _plaque(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Iterator[LookAlike]:
    """A flat thickening of the pleura at the chest wall."""
    thorax = anatomy.thorax
    rim = points_inside(canvas, np.maximum(np.abs(thorax.cavity + 1) - 2, thorax.lungs - 3), rng)
    rim = rim[np.abs(rim[:, 2] - 40) < 70]
    if len(rim):
        lens, point = _flat_on(canvas, thorax.cavity, rim[rng.integers(len(rim))], (10.0, 7.5, 2.7), rng)
        draw(canvas, anatomy.image, lens, 70.0)
        yield _mark("pleural plaque", point, 16.0)


def _thick_fissure(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Iterator[LookAlike]:
    """A thin lens of fluid in the right oblique fissure."""
    thorax = anatomy.thorax
    near = points_inside(canvas, np.maximum(np.abs(thorax.right_fissure) - 1.5, thorax.right_lung + 12), rng)
    if len(near):
        lens, point = _flat_on(canvas, thorax.right_fissure, near[rng.integers(len(near))], (12.0, 5.0, 0.9), rng)
        draw(canvas, anatomy.image, lens, -150.0)
        yield _mark("thickened fissure", point, 16.0)


def _apical_scar(canvas: Canvas, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Iterator[LookAlike]:
    """Bands that meet under the pleura at the top of one lung."""
    lung = anatomy.thorax.left_lung if side > 0 else anatomy.thorax.right_lung
    rim = points_inside(canvas, np.abs(lung + 4) - 2, rng)
    top = rim[np.argsort(-rim[:, 2])[: max(len(rim) // 40, 1)]]
    if len(top):
        point = top[rng.integers(len(top))]
        for _ in range(4):
            band = _wandering(point, _inwards(canvas, lung, point), rng.uniform(8, 16), rng)
            draw(
                canvas, anatomy.image, Tubes.along(band, rng.uniform(1.5, 3.0), 0.35, rng.normal(size=3)), -40.0, -lung
            )
        yield _mark("apical scar", point, 14.0)


def _mark(kind: str, point: NDArray[np.float64], size_mm: float) -> LookAlike:
    x, y, z = (round(float(v), 2) for v in point)
    return LookAlike((x, y, z), size_mm, kind)


def _flat_on(
    canvas: Canvas,
    surface: Field,
    near: NDArray[np.float64],
    size_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[Tubes, NDArray[np.float64]]:
    """A lens that lies in a surface, with its centre; its size is a length, then half a width and half a thickness."""
    length, wide, thick = size_mm
    normal = _inwards(canvas, surface, near)
    point = near + normal * canvas.sample(surface, near[None])
    first = np.cross(normal, rng.normal(size=3))
    first /= np.linalg.norm(first)
    ends = point + np.outer([-0.5, 0, 0.5], first) * length
    radii = np.array([0.75, 1.0, 0.75]) * wide
    return Tubes.along(ends, radii, thick / wide, np.cross(normal, first)), point


def points_inside(canvas: Canvas, field: Field, rng: np.random.Generator) -> NDArray[np.float64]:
    """One random point near each lattice point where a field is negative, LPS mm, in the field of view."""
    inside = np.argwhere(field < 0)
    low = np.array([axis[0] for axis in canvas.lattice_axes])
    points = (low + inside * canvas.pitch_mm)[:, ::-1] + rng.uniform(-1.5, 1.5, (len(inside), 3))
    return np.asarray(points[canvas.grid.contains(points)])


def _wandering(
    start: NDArray[np.float64], towards: NDArray[np.float64], length: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    steps = towards * length / 5 + rng.normal(0, length / 16, (5, 3))
    return np.asarray(start - 4 * towards + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]))


def _inwards(canvas: Canvas, field: Field, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction in which a field falls fastest."""
    around = np.concatenate([point + 2 * np.eye(3), point - 2 * np.eye(3)])
    values = canvas.sample(field, around)
    slope = values[3:] - values[:3]
    return np.asarray(slope / max(float(np.linalg.norm(slope)), 1e-6))
