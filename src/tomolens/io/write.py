"""Write a volume as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import OutputError
from tomolens.io.atomic import whole_file
from tomolens.io.image_content import facts_of
from tomolens.io.image_files import NIFTI_SUFFIXES, image_suffix
from tomolens.io.itk_images import write_itk
from tomolens.io.nifti import write_nifti

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

WRITE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")
_HELD = ("int16", "float32", "uint8", "int8", "uint16", "int32", "uint32", "float64")
"""Kinds of number that each of the formats holds, in the machine's byte order."""


def write_volume(volume: Volume, path: Path | str) -> Path:
    """Write a volume with its exact grid, in the format that the suffix names.

    Parameters
    ----------
    volume
        Modality, padding, frame of reference and history are kept with it, so that `tomolens.read_volume` gives the
        same volume back: as int16 where its numbers are that, else as float32.
    path
        Ends in ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``. What stands there is replaced once the new file is whole.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OutputError
        If the suffix is another, the format cannot hold the grid or the kind of number, or the file cannot be written.
    """
    path = Path(path)
    suffix = image_suffix(path)
    _check(volume, path, suffix)
    write = write_nifti if suffix in NIFTI_SUFFIXES else write_itk
    try:
        with whole_file(path) as temporary:
            write(volume, temporary, facts_of(volume))
    except (OSError, RuntimeError) as failed:
        raise OutputError(f"{path} cannot be written: {failed}.") from failed
    return path


def _check(volume: Volume, path: Path, suffix: str) -> None:
    if suffix not in WRITE_SUFFIXES:
        accepted = ", ".join(WRITE_SUFFIXES)
        raise OutputError(f"{path}: volumes are written as {accepted}, not as {suffix or 'a name without suffix'}.")
    if volume.voxels.dtype not in [np.dtype(held) for held in _HELD]:
        raise OutputError(f"{path.name}: voxels are written as {', '.join(_HELD)}, not as {volume.voxels.dtype}.")
    if suffix == ".mha" and volume.grid.is_sheared:
        raise OutputError(
            f"{path.name}: MetaImage cannot hold a sheared grid; write .nrrd or .nii.gz, or resample the tilt."
        )
