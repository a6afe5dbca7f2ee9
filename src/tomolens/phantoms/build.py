"""How one generated patient differs from the next, all of it drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from tomolens.phantoms.shapes import Field, Points


@dataclass(frozen=True, eq=False)
class Build:
    """One patient: size, shape, habits and disease.

    Everything in ``..._mm`` is a length in the patient; HU are those of an unenhanced scan unless ``blood_hu`` is high.
    ``scale_xyz`` and ``bends`` take the template anatomy, an average adult, to this patient.
    """

    seed: int
    scale_xyz: NDArray[np.float64]
    bends: NDArray[np.float64]
    female: bool
    fat_mm: float
    heart: float
    lung_hu: float
    gravity_hu_per_mm: float
    parenchyma_texture_hu: float
    vessel_spacing_mm: float
    twig_mm: float
    blood_hu: float
    fissure_hu: float
    emphysema: float
    atelectasis: float
    pleural_thickening_mm: float
    hilar_nodes: int
    scars: int
    calcified_arteries: float
    left_dome_mm: float
    right_dome_mm: float

    @classmethod
    def of(cls, seed: int) -> Build:
        """Draw a patient."""
        rng = np.random.default_rng([seed, 1])
        female = bool(rng.random() < 0.45)
        size = rng.normal(0.95 if female else 1.02, 0.04)
        return cls(
            seed=seed,
            scale_xyz=np.clip(size * rng.normal(1, [0.03, 0.05, 0.05]), 0.82, 1.18),
            bends=_bends(rng),
            female=female,
            fat_mm=float(np.clip(rng.gamma(3.5, 4.0), 5, 34)),
            heart=float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.25)),
            lung_hu=float(rng.normal(-862, 18)),
            gravity_hu_per_mm=float(rng.uniform(0.1, 0.55)),
            parenchyma_texture_hu=float(rng.uniform(10, 24)),
            vessel_spacing_mm=float(rng.uniform(7.0, 9.5)),
            twig_mm=float(rng.uniform(0.4, 0.54)),
            blood_hu=float(rng.choice([42, rng.uniform(110, 260)], p=[0.65, 0.35])),
            fissure_hu=float(rng.uniform(90, 260)),
            emphysema=float(max(0.0, rng.normal(-0.4, 0.6))),
            atelectasis=float(rng.choice([0.0, rng.uniform(0.2, 1.0)], p=[0.45, 0.55])),
            pleural_thickening_mm=float(rng.choice([0.0, rng.uniform(0.8, 2.5)], p=[0.7, 0.3])),
            hilar_nodes=int(rng.poisson(3)),
            scars=int(rng.poisson(1.5)),
            calcified_arteries=float(max(0.0, rng.normal(0.0, 0.6))),
            left_dome_mm=float(rng.normal(-12, 6)),
            right_dome_mm=float(rng.normal(4, 6)),
        )

    def to_patient(self, template_mm: ArrayLike) -> NDArray[np.float64]:
        """Take (..., 3) LPS points of the template to this patient."""
        points = np.asarray(template_mm, np.float64)
        return np.asarray((points + np.stack(self._bend([points[..., n] for n in range(3)]), axis=-1)) * self.scale_xyz)

    def to_template(self, x: Field, y: Field, z: Field) -> Points:
        """Take the patient's x, y and z to the template; undoes `to_patient` to a few tenths of a millimetre."""
        scaled = [p / np.float32(s) for p, s in zip((x, y, z), self.scale_xyz, strict=True)]
        guess = scaled
        for _ in range(2):
            guess = [p - moved for p, moved in zip(scaled, self._bend(guess), strict=True)]
        return guess[0], guess[1], guess[2]

    def _bend(self, points: Sequence[Any]) -> list[Any]:
        """How far each of x, y and z moves."""
        moved: list[Any] = [0, 0, 0]
        for wave in self.bends.astype(np.float32):
            height = np.sin(points[0] * wave[0] + points[1] * wave[1] + points[2] * wave[2] + wave[3])
            moved = [m + height * shift for m, shift in zip(moved, wave[4:], strict=True)]
        return moved


def _bends(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw six long waves: (6, 7) of wave vector, phase and shift in mm."""
    direction = rng.normal(size=(6, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = rng.uniform(140, 320, size=(6, 1))
    shift = rng.normal(0, 1.0, size=(6, 3)) * (length / 120)
    return np.concatenate([direction * 2 * np.pi / length, rng.uniform(0, 2 * np.pi, (6, 1)), shift], axis=1)
