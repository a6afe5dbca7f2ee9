"""The organs of the chest as signed distances on the lattice.

The template is an average adult on the back, arms raised: x = 0 in the midline, z = 0 near the top of the diaphragm,
the tracheal bifurcation near z = 95 and the lung apices near z = 190; all in mm, LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from tomolens.phantoms.shapes import along, as_distance, common, ellipsoid, joined, tube, waves, without

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.phantoms.build import Build
    from tomolens.phantoms.canvas import Canvas
    from tomolens.phantoms.shapes import Field, Points

    Knots = tuple[tuple[float, float], ...]

CAVITY_HALF_WIDTH = (
    (-120, 128), (-80, 131), (-20, 133), (40, 129), (90, 120), (130, 107), (155, 95), (172, 81), (186, 60), (197, 28)
)  # fmt: skip
CAVITY_FRONT = ((-120, -96), (-20, -95), (30, -90), (80, -80), (120, -66), (150, -46), (172, -24), (186, -4), (197, 14))
CAVITY_BACK = ((-120, 88), (-60, 97), (0, 101), (60, 101), (110, 92), (145, 81), (170, 70), (186, 56), (197, 36))
SPINE_Y = ((-130, 52), (-60, 60), (20, 66), (80, 66), (130, 54), (170, 38), (215, 20))
BODY_HALF_WIDTH = ((-120, 152), (-40, 154), (20, 156), (80, 164), (120, 172), (155, 182), (190, 186), (220, 176))
BODY_FRONT = ((-120, -108), (-20, -108), (40, -104), (90, -96), (130, -84), (170, -66), (220, -48))
BODY_BACK = ((-120, 122), (0, 134), (80, 136), (140, 122), (180, 108), (220, 92))

TRACHEA = np.array([[0, -2, 225], [0, 4, 170], [-1, 14, 125], [-3, 22, 97]], float)
RIGHT_BRONCHUS = np.array([[-3, 22, 97], [-14, 24, 88], [-26, 27, 80], [-36, 27, 71]], float)
LEFT_BRONCHUS = np.array([[-3, 22, 97], [10, 25, 88], [26, 29, 79], [42, 33, 69]], float)
ASCENDING_AORTA = np.array([[-2, -22, 48], [-14, -32, 70], [-18, -30, 98], [-10, -20, 116]], float)
AORTIC_ARCH = np.array([[-10, -20, 116], [2, -6, 125], [14, 12, 125], [22, 30, 117], [26, 44, 100]], float)
DESCENDING_AORTA = np.array([[26, 44, 100], [27, 52, 75], [24, 50, 20], [14, 42, -60], [8, 36, -130]], float)
CAVAL_VEIN = np.array([[-26, -24, 140], [-31, -20, 110], [-33, -14, 75], [-32, -12, 50]], float)
LEFT_BRACHIOCEPHALIC_VEIN = np.array([[62, -22, 178], [36, -36, 160], [8, -40, 147], [-26, -24, 138]], float)
RIGHT_BRACHIOCEPHALIC_VEIN = np.array([[-62, -14, 182], [-38, -18, 165], [-26, -24, 140]], float)
BRACHIOCEPHALIC_ARTERY = np.array([[-8, -16, 122], [-15, -10, 145], [-24, -4, 168], [-44, 2, 190]], float)
LEFT_CAROTID = np.array([[6, -2, 128], [12, 0, 155], [20, 2, 185], [24, 0, 220]], float)
LEFT_SUBCLAVIAN = np.array([[16, 16, 126], [22, 20, 155], [32, 14, 178], [58, 2, 194]], float)
PULMONARY_TRUNK = np.array([[16, -46, 52], [22, -36, 72], [20, -14, 84]], float)
LEFT_PULMONARY_ARTERY = np.array([[20, -14, 84], [32, 8, 88], [42, 22, 82], [46, 30, 74]], float)
RIGHT_PULMONARY_ARTERY = np.array([[20, -14, 84], [0, -4, 80], [-20, 2, 76], [-38, 10, 70]], float)
LOWER_CAVAL_VEIN = np.array([[-28, 0, 28], [-24, 12, 5], [-22, 14, -40], [-20, 18, -130]], float)
AZYGOS = np.array([[-8, 42, -120], [-9, 46, 20], [-9, 44, 95], [-18, 36, 108], [-28, 8, 112], [-31, -14, 106]], float)
ESOPHAGUS = np.array([[6, 18, 220], [7, 28, 150], [5, 38, 100], [4, 40, 55], [8, 36, 10], [16, 26, -16]], float)


GREAT_VESSELS = (
    (ASCENDING_AORTA, 15.5),
    (AORTIC_ARCH, 13.0),
    (DESCENDING_AORTA, 11.5),
    (PULMONARY_TRUNK, 13.0),
    (LEFT_PULMONARY_ARTERY, 9.5),
    (RIGHT_PULMONARY_ARTERY, 9.5),
    (CAVAL_VEIN, 8.5),
    (LOWER_CAVAL_VEIN, 11.0),
    (LEFT_BRACHIOCEPHALIC_VEIN, 6.0),
    (RIGHT_BRACHIOCEPHALIC_VEIN, 6.5),
    (BRACHIOCEPHALIC_ARTERY, 6.0),
    (LEFT_CAROTID, 4.0),
    (LEFT_SUBCLAVIAN, 5.0),
    (AZYGOS, 3.5),
)
"""Path and radius, in mm, of each."""


def _heart_turn() -> NDArray[np.float64]:
    """Directions of the heart's radii: its long axis runs to the left, the front and down."""
    axis = np.array([0.72, -0.52, -0.46])
    side = np.cross(axis, [0.0, 0.0, 1.0])
    columns = np.stack([axis, side, np.cross(axis, side)], axis=1)
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


HEART_TURN = _heart_turn()
HEART_CHAMBERS = (
    ((36, -36, 4), (38, 20, 20)),
    ((12, -62, 8), (40, 14, 26)),
    ((-26, -26, 26), (22, 26, 26)),
    ((5, 13, 46), (24, 34, 26)),
)
"""Centres and radii of the left ventricle, the right one, the right atrium and the left one."""

_MEDIASTINUM_Y = (-110, -70, -40, 0, 40, 70, 110)
_MEDIASTINUM_Z = (-100, -20, 30, 80, 110, 140, 165, 200)
_LEFT_REACH = np.array(
    [
        [30, 30, 26, 22, 16, 16, 10],
        [12, 18, 22, 20, 16, 16, 10],
        [6, 12, 22, 26, 18, 16, 10],
        [4, 12, 24, 28, 22, 16, 10],
        [4, 10, 18, 22, 20, 14, 10],
        [12, 20, 24, 24, 22, 14, 10],
        [22, 26, 26, 26, 24, 18, 12],
        [24, 28, 30, 30, 28, 22, 16],
    ]
)
_RIGHT_REACH = np.array(
    [
        [26, 28, 28, 20, 8, 12, 10],
        [10, 18, 22, 18, 4, 10, 10],
        [4, 12, 24, 22, 6, 10, 10],
        [3, 12, 28, 28, 14, 10, 10],
        [3, 12, 26, 26, 16, 12, 10],
        [12, 22, 30, 28, 20, 14, 10],
        [22, 28, 30, 28, 24, 18, 12],
        [24, 30, 32, 32, 30, 22, 16],
    ]
)


@dataclass(frozen=True, eq=False)
class Thorax:
    """Signed distances on the lattice; see `Canvas.lattice`."""

    body: Field
    muscle: Field
    cavity: Field
    diaphragm: Field
    heart: Field
    left_lung: Field
    right_lung: Field
    left_fissure: Field
    right_fissure: Field
    minor_fissure: Field
    points: Points

    @property
    def fissures(self) -> tuple[Field, Field, Field]:
        """All three, each on its own side of the chest; far away on the other."""
        left = self.points[0] > 0
        right = np.where(left, 99, self.right_fissure), np.where(left, 99, self.minor_fissure)
        return np.where(left, self.left_fissure, 99), *right

    @property
    def lungs(self) -> Field:
        """Both lungs."""
        return np.minimum(self.left_lung, self.right_lung)


def field_of_view(build: Build) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Opposite corners, LPS mm, of a field of view that shows the chest from the liver to above the lungs."""
    x, y, z = (float(s) for s in build.scale_xyz)
    half_width = min(162 * x + build.fat_mm + 8, 205.0)
    front = -(112 * y + build.fat_mm + (22 if build.female else 6))
    back = 136 * y + build.fat_mm + 24
    return (-half_width, front, -98 * z), (half_width, back, 204 * z)


def thorax_of(build: Build, canvas: Canvas) -> Thorax:
    """Shape the chest of one patient."""
    rng = np.random.default_rng([build.seed, 2])
    x, _, z = points = build.to_template(*canvas.lattice)
    cavity = as_distance(_oval(points, CAVITY_HALF_WIDTH, CAVITY_FRONT, CAVITY_BACK, 2.35), canvas.pitch_mm)
    diaphragm = as_distance(z - _diaphragm_height(points, build, rng), canvas.pitch_mm)
    heart = common(_heart(points, build), 4 - diaphragm, 8)
    mediastinum = _mediastinum(points, build, heart)
    above = without(common(cavity, -diaphragm, 6), _spine_room(points), 8)
    lungs = without(above, mediastinum, 5)
    lungs = lungs + np.float32(build.pleural_thickening_mm) * np.clip(waves(points, rng, 50) - 0.4, 0, 1)
    body, muscle = _wall(points, build, cavity, canvas.pitch_mm)
    return Thorax(
        body=body,
        muscle=muscle,
        cavity=cavity,
        diaphragm=diaphragm,
        heart=heart,
        left_lung=common(lungs, -x),
        right_lung=common(lungs, x),
        left_fissure=_oblique_fissure(points, rng, 0.0),
        right_fissure=_oblique_fissure(points, rng, -8.0),
        minor_fissure=_minor_fissure(points, rng),
        points=points,
    )


def _oval(points: Points, half_width: Knots, front: Knots, back: Knots, power: float) -> Field:
    """A stack of rounded rectangles: a function of the template, not yet a distance."""
    x, y, z = points
    front_y, back_y = along(z, front), along(z, back)
    depth, middle = (back_y - front_y) / 2, (back_y + front_y) / 2
    width = along(z, half_width)
    ring = (np.abs(x / width) ** power + np.abs((y - middle) / depth) ** power) ** (1 / power)
    return np.asarray((ring - 1) * np.minimum(width, depth), np.float32)


def _diaphragm_height(points: Points, build: Build, rng: np.random.Generator) -> Field:
    """Height z of the two domes above each x and y."""
    x, y, _ = points
    right = build.right_dome_mm - _dome(x + 66, y + 10, 60)
    left = build.left_dome_mm - _dome(x - 68, y + 6, 58)
    middle = min(build.left_dome_mm, build.right_dome_mm) - 8 - 20 * (x / 55) ** 2 - 26 * (y / 85) ** 2
    ripple = 1.5 * waves((x, y, np.zeros_like(x)), rng, 70)
    return np.asarray(ripple - joined(joined(-right, -left, 10), -middle, 16), np.float32)


def _dome(x: Field, y: Field, radius: float) -> Field:
    """Fall below the top of a dome: gentle on top, steep at the back."""
    q = (x / radius) ** 2 + (y / np.where(y > 0, 78, 96)) ** 2
    return np.asarray(30 * q + np.where(y > 0, 30, 10) * np.maximum(q - 0.5, 0) ** 1.3, np.float32)


def _heart(points: Points, build: Build) -> Field:
    """The heart in its sac: apex to the left, to the front and down."""
    s = build.heart
    ventricles = ellipsoid(points, (22, -40, 11), (66 * s, 48 * s, 45 * s), HEART_TURN)
    right_atrium = ellipsoid(points, (-26, -26, 26), (27 * s, 33 * s, 36 * s))
    left_atrium = ellipsoid(points, (5, 13, 46), (38 * s, 24 * s, 28 * s))
    return joined(joined(ventricles, right_atrium, 14), left_atrium, 12)


def _mediastinum(points: Points, build: Build, heart: Field) -> Field:
    """What lies between the lungs, covered by pleura."""
    x, y, z = points
    where = np.stack([np.clip(z, -100, 200), np.clip(y, -110, 110)], axis=-1)
    left, right = (
        RegularGridInterpolator((_MEDIASTINUM_Z, _MEDIASTINUM_Y), reach.astype(np.float32))(where)
        for reach in (_LEFT_REACH, _RIGHT_REACH)
    )
    slab = np.maximum(x - left, -x - right).astype(np.float32)
    aorta = joined(tube(points, AORTIC_ARCH, 16), tube(points, DESCENDING_AORTA, 14), 4)
    hila = joined(tube(points, RIGHT_BRONCHUS, 11), tube(points, LEFT_BRONCHUS, 11))
    arteries = joined(tube(points, LEFT_PULMONARY_ARTERY, 12), tube(points, RIGHT_PULMONARY_ARTERY, 12))
    vessels = joined(joined(aorta, tube(points, CAVAL_VEIN, 11), 4), joined(hila, arteries, 8), 4)
    vessels = joined(vessels, tube(points, LEFT_SUBCLAVIAN, 7), 4)
    return joined(joined(slab, heart - 3, 10), vessels, 8)


def _spine_room(points: Points) -> Field:
    """The vertebrae and the muscle beside them, which the lungs bend around."""
    x, y, z = points
    behind = y - along(z, SPINE_Y)
    bodies = np.hypot(x, behind) - 20
    wedge = np.abs(x) * 0.92 - np.maximum(behind, 0) * 0.42 - 16
    return joined(bodies, np.maximum(wedge, 2 - behind), 8)


def _wall(points: Points, build: Build, cavity: Field, pitch_mm: float) -> tuple[Field, Field]:
    """The skin and, under the fat, the muscles."""
    x, y, z = points
    outline = _oval(points, BODY_HALF_WIDTH, BODY_FRONT, BODY_BACK, 2.5)
    furrow = 7 * np.exp(-((x / 22) ** 2)) * (y > 0)
    body = as_distance(outline + furrow, pitch_mm) - np.float32(build.fat_mm - 6)
    if build.female:
        right, left = (ellipsoid(points, (side * 78, -104, 30), (52, 24 + build.fat_mm, 50)) for side in (-1, 1))
        body = joined(body, joined(right, left), 22)
    back = np.clip((y - 30) / 40, 0, 1) * np.clip((95 - np.abs(x)) / 30, 0, 1)
    blade = np.clip((y - 15) / 40, 0, 1) * np.clip((z - 10) / 40, 0, 1)
    shoulder = np.clip((z - 110) / 50, 0, 1) * np.clip((y + 60) / 40, 0.2, 1)
    chest = np.clip((-y - 20) / 40, 0, 1) * np.clip((np.abs(x) - 25) / 30, 0, 1) * np.clip((z - 20) / 60, 0, 1)
    thickness = 13 + np.maximum(26 * back, 33 * blade) + 40 * shoulder + 13 * chest
    muscle = common(body + np.float32(build.fat_mm), cavity - thickness, 6)
    return body, muscle


def _oblique_fissure(points: Points, rng: np.random.Generator, shift: float) -> Field:
    """Positive above and in front of the oblique fissure; a distance."""
    x, y, z = points
    height = 38 + shift + rng.normal(0, 5) + (0.95 + rng.normal(0, 0.06)) * y - 0.0022 * (y * np.abs(y))
    height += 2.5 * waves((x, y, np.zeros_like(x)), rng, 90) + 0.06 * (np.abs(x) - 60)
    return np.asarray((z - height) * 0.73, np.float32)


def _minor_fissure(points: Points, rng: np.random.Generator) -> Field:
    """Positive above the horizontal fissure of the right lung; a distance."""
    x, y, z = points
    height = 56 + rng.normal(0, 5) + 0.10 * y - 0.0012 * (x + 70) ** 2
    return np.asarray(z - height - 2.0 * waves((x, y, np.zeros_like(x)), rng, 80), np.float32)
