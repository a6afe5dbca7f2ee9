"""A generated head, as a T1-weighted MR volume, whose anatomy and lesions are known."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft

from tomolens.core.volume import Unit, Volume
from tomolens.phantoms.canvas import Canvas
from tomolens.phantoms.shapes import as_distance, common, ellipsoid, joined, tube, waves, without

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tomolens.phantoms.shapes import Field, Points

_LOW_LPS_MM = (-84.0, -112.0, -92.0)
_HIGH_LPS_MM = (84.0, 108.0, 92.0)
_CORTEX_MM = 3.0
SIGNAL = {
    "skin": 420.0, "fat": 900.0, "muscle": 380.0, "bone": 40.0, "marrow": 520.0, "fluid": 130.0, "grey": 480.0,
    "deep grey": 560.0, "white": 720.0, "eye": 110.0, "air": 0.0,
}  # fmt: skip
"""What each tissue gives in a T1-weighted image, in the volume's arbitrary unit."""
_DEEP_NUCLEI = (((11, 6, 8), (9, 15, 10)), ((25, -8, 6), (7, 18, 11)), ((15, -24, 12), (6, 10, 11)))
"""Centres and radii of thalamus, lentiform nucleus and head of the caudate, on the left."""


@dataclass(frozen=True)
class Lesion:
    """A lesion as it was drawn."""

    kind: str
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class BrainPhantom:
    """A generated MR volume of a head, with the truth about it.

    Parameters
    ----------
    volume
        T1-weighted, float32 in an arbitrary unit, axes superior, posterior, left.
    clean
        The same without noise and without the uneven sensitivity of the receiver.
    lesions
        What was drawn into the brain. The left lateral ventricle is the larger one.
    """

    volume: Volume
    clean: Volume
    lesions: tuple[Lesion, ...]


def brain_phantom(
    seed: int, *, spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0), noise: float = 12.0
) -> BrainPhantom:
    """Generate a T1-weighted MR volume of a made-up head.

    Parameters
    ----------
    seed
        The same call gives the same voxels.
    spacing_mm
        Voxel spacing along slices, rows and columns.
    noise
        Standard deviation of the noise in each of the two channels whose magnitude is shown; white matter gives 720.
    """
    rng = np.random.default_rng([seed, 21])
    canvas = Canvas(_LOW_LPS_MM, _HIGH_LPS_MM, spacing_mm, max(0.7, 0.6 * max(spacing_mm)), pitch_mm=2.0)
    image = np.zeros(canvas.grid.shape, np.float32)
    for field, value in _tissues(canvas, rng):
        canvas.paint(image, field, value)
    lesions = _lesions(rng)
    for lesion, value, radii in lesions:
        canvas.paint(image, ellipsoid(canvas.lattice, lesion.center_lps_mm, radii), value)
    history = (f"generated brain phantom, seed {seed}",)
    clean = Volume(image, canvas.grid, Unit.ARBITRARY, "MR", history=history)
    seen = image * _receiver(canvas, rng)
    voxels = np.hypot(seen + _noise(image.shape, noise, rng), _noise(image.shape, noise, rng))
    return BrainPhantom(
        clean.with_voxels(voxels, "uneven receiver and noise"), clean, tuple(lesion for lesion, _, _ in lesions)
    )


def sample_brain_mr() -> Volume:
    """Generate the sample brain MR: the voxels of ``sample_volumes/brain_mr.nii.gz``."""
    return sample_brain().volume


def sample_brain() -> BrainPhantom:
    """Generate the sample brain MR with its truth; the volume is in whole numbers."""
    brain = brain_phantom(3, spacing_mm=(2.2, 1.3, 1.3))
    step = 8
    voxels = (np.rint(brain.volume.voxels / np.float32(step)) * step).astype(np.int16)
    return replace(brain, volume=brain.volume.with_voxels(voxels, f"rounded to {step}"))


def _noise(shape: tuple[int, ...], spread: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32) * np.float32(spread)


def _receiver(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth factors around 1."""
    field = 1 + 0.10 * waves(canvas.lattice, rng, 260, 4)
    return canvas.fine(np.asarray(field, np.float32), (slice(None), slice(None), slice(None)))


def _tissues(canvas: Canvas, rng: np.random.Generator) -> Iterator[tuple[Field, float]]:
    """Signed distances on the lattice and their signals, from the outside in."""
    points = _, _, z = canvas.lattice
    hull = _hull(points)
    yield from _head(points, hull)
    tissue, cerebellum = _folded(canvas, hull, rng)
    yield hull - np.float32(2.5), SIGNAL["fluid"]
    yield tissue, SIGNAL["grey"]
    yield tissue + np.float32(_CORTEX_MM), SIGNAL["white"]
    yield cerebellum, SIGNAL["grey"]
    yield _folia(points, cerebellum), SIGNAL["white"]
    stem = tube(points, np.array([[0, 8, -8], [0, 12, -40], [0, 22, -62], [0, 27, -130]], float), (13, 13, 8, 6))
    yield common(stem - 9, z + np.float32(58)), SIGNAL["marrow"]
    yield common(stem - 4.5, z + np.float32(40)), SIGNAL["fluid"]
    yield stem, SIGNAL["white"]
    for side in (-1, 1):
        for center, radii in _DEEP_NUCLEI:
            yield ellipsoid(points, (side * center[0], *center[1:]), radii), SIGNAL["deep grey"]
    yield from ((ventricle, SIGNAL["fluid"]) for ventricle in _ventricles(points))


def _hull(points: Points) -> Field:
    """The smooth surface around brain, cerebellum and stem."""
    cerebrum = ellipsoid(points, (0, -4, 14), (66, 84, 60))
    right, left = (ellipsoid(points, (side * 42, -14, -20), (25, 44, 24)) for side in (-1, 1))
    brain = joined(cerebrum, joined(right, left), 14)
    return joined(brain, ellipsoid(points, (0, 46, -36), (50, 32, 27)), 10)


def _head(points: Points, hull: Field) -> Iterator[tuple[Field, float]]:
    """Scalp, face, skull and eyes."""
    face = joined(ellipsoid(points, (0, -58, -52), (54, 44, 56)), ellipsoid(points, (0, -100, -40), (14, 18, 20)), 14)
    neck = tube(points, np.array([[0, 24, -60], [0, 30, -120]], float), 56)
    head = joined(joined(hull - np.float32(15), face, 24), neck, 30)
    yield head, SIGNAL["skin"]
    yield head + np.float32(2.0), SIGNAL["fat"]
    yield joined(common(joined(neck, face), head + np.float32(7)), hull - np.float32(10.5)), SIGNAL["muscle"]
    skull = hull - np.float32(9.5)
    yield skull, SIGNAL["bone"]
    yield without(skull + np.float32(2), hull - np.float32(4.5)), SIGNAL["marrow"]
    for side in (-1, 1):
        yield ellipsoid(points, (side * 32, -80, -26), (17, 20, 16)), SIGNAL["fat"]
        yield ellipsoid(points, (side * 32, -84, -26), (12, 12.5, 12)), SIGNAL["eye"]
        yield ellipsoid(points, (side * 26, -72, -62), (13, 15, 16)), SIGNAL["air"]
    yield ellipsoid(points, (0, -78, -48), (9, 24, 20)), SIGNAL["air"]


def _folded(canvas: Canvas, hull: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """The cerebrum, cut by its furrows, and the cerebellum."""
    x, y, z = canvas.lattice
    cerebellum = common(common(hull + np.float32(1), z + np.float32(16) + 0.25 * (y - 40)), 18 - y, 8)
    furrows = np.abs(_rolling(hull.shape, canvas.pitch_mm, 11.0, rng)) - 0.5
    furrows = common(furrows, -(hull + 15 + 5 * waves(canvas.lattice, rng, 40)))
    halves = common(np.abs(x + 1.5 * waves((x * 0, y, z), rng, 90)) - 0.9, 26 - 0.005 * y**2 - z)
    cut = joined(furrows, joined(halves, _side_furrows(canvas.lattice, rng)))
    return without(without(hull + np.float32(1), cut), cerebellum - np.float32(2)), cerebellum


def _side_furrows(points: Points, rng: np.random.Generator) -> Field:
    """The lateral furrows, above the temporal lobes."""
    x, y, z = points
    sheet = np.abs(z + 4 + 0.5 * (y + 8) + 3 * waves(points, rng, 60)) - 0.9
    return common(sheet, common(38 - np.abs(x) - 0.004 * (y + 8) ** 2, np.abs(y + 6) - 30, 16))


def _rolling(shape: tuple[int, ...], pitch_mm: float, length_mm: float, rng: np.random.Generator) -> Field:
    """Distance, about, to the zero surface of a random field whose hills are half a ``length_mm`` apart."""
    f = [fft.fftfreq(n, pitch_mm) for n in shape[:2]] + [fft.rfftfreq(shape[2], pitch_mm)]
    radius = np.sqrt(f[0][:, None, None] ** 2 + f[1][None, :, None] ** 2 + f[2][None, None, :] ** 2)
    band = np.exp(-(((radius - 1 / (2 * length_mm)) * length_mm * 2.8) ** 2)).astype(np.float32)
    field = fft.irfftn(fft.rfftn(rng.standard_normal(shape, np.float32)) * band, shape)
    return as_distance(np.asarray(field / field.std() * 6, np.float32), pitch_mm)


def _folia(points: Points, cerebellum: Field) -> Field:
    """White matter of the cerebellum: a core with thin leaves."""
    x, y, z = points
    ring = np.hypot(z + 34, y - 34)
    leaves = 1.0 - np.abs(np.mod(ring + 0.05 * np.abs(x), 6.0) - 3.0)
    return joined(common(leaves, cerebellum + np.float32(3)), ellipsoid(points, (0, 40, -34), (26, 10, 8)))


def _ventricles(points: Points) -> Iterator[Field]:
    """Lateral ventricles, the left one larger, then the third and the fourth."""
    for side, size in ((-1, 1.0), (1, 1.35)):
        body = np.array([[14, -34, 16], [10, -14, 24], [13, 14, 27], [22, 34, 18], [30, 26, 0], [32, 8, -10]], float)
        yield tube(points, body * (side, 1, 1), np.array([4.0, 4.6, 5.2, 6.2, 4.6, 2.6]) * size)
        yield tube(points, np.array([[22, 34, 18], [20, 54, 12]], float) * (side, 1, 1), np.array([5.0, 2.5]) * size)
    yield ellipsoid(points, (0, 2, 4), (2.0, 14, 10))
    yield ellipsoid(points, (0, 26, -34), (6, 4, 9))


def _lesions(rng: np.random.Generator) -> list[tuple[Lesion, float, tuple[float, float, float]]]:
    """A dark and a bright lesion in white matter, a mass at the left convexity, small spots near the ventricles."""
    drawn = []
    fixed = (
        ("old infarct", (-34, -22, 34), (9, 11, 8), SIGNAL["fluid"] + 60),
        ("mass at the dura", (50, 26, 44), (11, 13, 11), SIGNAL["grey"] + 40),
        ("bleeding", (-28, 38, 22), (5, 6, 5), 1000.0),
    )
    spots = []
    for side in (-1, 1, 1):
        center = (side * rng.uniform(20, 32), rng.uniform(-30, 30), rng.uniform(26, 38))
        spots.append(("white matter spot", center, (2.4, 2.8, 2.2), 470.0))
    for kind, center, radii, value in (*fixed, *spots):
        at = tuple(round(float(v), 2) for v in center)
        diameter = 2 * float(np.prod(radii)) ** (1 / 3)
        drawn.append((Lesion(kind, (at[0], at[1], at[2]), round(diameter, 2)), value, radii))
    return drawn
