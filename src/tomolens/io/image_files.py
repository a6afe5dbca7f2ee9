"""Image files that hold one volume: which there are, and what they leave unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomolens.core.errors import OptionError, ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.volume import Unit, Volume
from tomolens.io.itk_images import read_itk
from tomolens.io.nifti import read_nifti
from tomolens.io.padding import LEAST_AIR_HU, with_padding_found

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
_MODALITIES = ("CT", "MR")
_AIR_HU = -900
_AIR_OR_LUNG, _GAP, _SOFT_TISSUE = (LEAST_AIR_HU, -750), (-600, -250), (-200, 200)
"""In HU; even small boxes around a nodule, with little lung, have a tenth as much air or lung as gap."""
_LEAST_TISSUE = 0.001


def image_suffix(path: Path) -> str:
    """The suffix that names the format, ``.nii.gz`` in one piece, in lower case."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def read_image(path: Path, *, modality: str | None = None, progress: Progress = silent) -> Volume:
    """Read one image file; see `tomolens.io.read.read_volume`.

    Raises
    ------
    ReadError
        If the file is damaged, or is not one 3D image of numbers.
    OptionError
        If ``modality`` is neither ``CT`` nor ``MR``.
    """
    if modality not in (None, *_MODALITIES):
        raise OptionError(f"modality is one of {', '.join(_MODALITIES)}, not {modality!r}.")
    read = read_nifti if image_suffix(path) in NIFTI_SUFFIXES else read_itk
    progress(Step("read image", 0, 1))
    content = read(path)
    voxels, facts = content.voxels, content.trusted_facts
    if voxels.dtype == np.float32 and not np.isfinite(voxels).all():
        raise ReadError(f"{path}: {np.count_nonzero(~np.isfinite(voxels))} voxels are not finite numbers.")
    history = content.history
    modality = modality or facts.get("modality")
    if modality is None:
        modality, why = _guess(voxels)
        history += (f"taken for {modality}: {path.name} does not say, and {why}",)
    unit = Unit.HU if modality == "CT" else Unit.ARBITRARY
    padding = facts.get("padding")
    progress(Step("read image", 1, 1))
    return with_padding_found(Volume(voxels, content.grid, unit, modality, None, padding, history))


def _guess(voxels: NDArray[Any]) -> tuple[str, str]:
    """CT or MR, and why."""
    low = float(voxels.min())
    whole = voxels.dtype == np.int16 or bool((voxels == np.round(voxels)).all())
    if low > _AIR_HU or not whole:
        return "MR", f"its voxels, from {low:g}, are not whole numbers that reach down to air at {_AIR_HU} HU"
    if not _like_ct(voxels, low):
        return (
            "MR",
            f"its voxels, whole numbers from {low:g}, do not lie as those of air, lung and soft tissue in HU do",
        )
    return "CT", f"its voxels are whole numbers down to {low:g} that lie as Hounsfield units of air and soft tissue do"


def _like_ct(voxels: NDArray[Any], low: float) -> bool:
    """Whether there is soft tissue, and air or lung apart from it, and hardly anything below but one padding value.

    An MR phase image or field map goes on below the air of a CT, or has many times more between air and tissue than
    at the air.
    """
    air, gap, tissue = (np.count_nonzero((voxels >= a) & (voxels <= b)) for a, b in (_AIR_OR_LUNG, _GAP, _SOFT_TISSUE))
    below = np.count_nonzero((voxels < _AIR_OR_LUNG[0]) & (voxels > low))
    return bool(tissue >= _LEAST_TISSUE * voxels.size and 10 * air > gap and air > 10 * below)
