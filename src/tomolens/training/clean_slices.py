"""CT slices with hardly any noise, to put noise on: generated chests, and scans made coarse until little is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.io.image_files import IMAGE_SUFFIXES, image_suffix
from tomolens.io.read import read_volume
from tomolens.phantoms.chest import chest_phantom
from tomolens.physics.noise import quiet_noise
from tomolens.training.fingerprint import fingerprint_of_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MOST_LEFT_HU = 8.0
"""Noise that may be left in what is taken for clean; the least that is put on it is about half of that."""
PHANTOM_SPACING_MM = (3.6, 0.8, 0.8)
_COARSEST = 4
_HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class CleanStack:
    """Slices of one patient, (slice, row, column) int16 in HU.

    ``generated`` tells phantoms from scans; ``origin`` is a hash of the scan that they were made from.
    """

    name: str
    slices_hu: NDArray[np.int16]
    generated: bool
    origin: str = ""

    @property
    def shown(self) -> range:
        """Middle slices that training shows: all but the last eighth and its neighbours."""
        return range(max(1, self.held_out.start - 2))

    @property
    def held_out(self) -> range:
        """Middle slices that training never shows: the last eighth."""
        count = len(self.slices_hu)
        return range(count - max(1, count // _HELD_OUT), count)

    def around(self, k: int, place: tuple[slice, ...] = ()) -> NDArray[np.float32]:
        """A slice, or a place of it, between its two neighbours, (3, row, column); the stack's end is repeated."""
        near = np.clip([k - 1, k, k + 1], 0, len(self.slices_hu) - 1)
        return np.stack([self.slices_hu[n][place] for n in near]).astype(np.float32)


def clean_stacks(folder: Path, phantom_seeds: Sequence[int], progress: Progress = silent) -> list[CleanStack]:
    """All of them: one of each CT file below a folder that can be made clean, and one of each phantom.

    Raises
    ------
    ReadError
        If there is none, or a file cannot be read.
    """
    stacks = [*_of_scans(folder, progress), *_of_phantoms(phantom_seeds, progress)]
    if not stacks:
        raise ReadError(
            f"{folder} holds no CT file (NIfTI, NRRD, MetaImage) that can be made clean, and no phantom was asked for; "
            "training needs some clean slices."
        )
    return stacks


def made_clean(slices_hu: NDArray[np.float32]) -> NDArray[np.int16] | None:
    """Slices made coarser by means over as many pixels as leave little noise; None where more than 4 are needed.

    A mean over f by f pixels takes white noise down by f, and that of a CT, which has less at low frequencies, by more.
    """
    some = slices_hu[len(slices_hu) // 8 :: max(1, len(slices_hu) // 8)]
    noise = [level for level in map(quiet_noise, some) if np.isfinite(level)]
    left = np.median(noise) if noise else np.inf
    if left > MOST_LEFT_HU * _COARSEST:
        return None
    factor = max(1, int(np.ceil(left / MOST_LEFT_HU)))
    rows, columns = (n // factor * factor for n in slices_hu.shape[1:])
    cut = slices_hu[:, :rows, :columns].reshape(len(slices_hu), rows // factor, factor, columns // factor, factor)
    return np.asarray(np.rint(cut.mean(axis=(2, 4), dtype=np.float32)), np.int16)


def _of_scans(folder: Path, progress: Progress) -> Iterator[CleanStack]:
    files = [file for file in sorted(folder.rglob("*")) if image_suffix(file) in IMAGE_SUFFIXES]
    for done, file in enumerate(files):
        progress(Step("read scans", done, len(files)))
        volume = read_volume(file, modality="CT").canonical()
        clean = made_clean(np.asarray(volume.voxels, np.float32))
        if clean is not None:
            yield CleanStack(file.relative_to(folder).as_posix(), clean, False, fingerprint_of_volume(volume))


def _of_phantoms(seeds: Sequence[int], progress: Progress) -> Iterator[CleanStack]:
    for done, seed in enumerate(seeds):
        progress(Step("generate phantoms", done, len(seeds)))
        volume = chest_phantom(seed, spacing_mm=PHANTOM_SPACING_MM, noise_hu=0.0).volume
        yield CleanStack(f"phantom-{seed}", volume.voxels, True)
