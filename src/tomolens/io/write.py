"""Write a volume as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tomolens.core.errors import OutputError
from tomolens.io.atomic import whole_file
from tomolens.io.image_content import facts_of
from tomolens.io.image_files import NIFTI_SUFFIXES, image_suffix
from tomolens.io.itk_images import write_itk
from tomolens.io.nifti import write_nifti

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

WRITE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")


def write_volume(volume: Volume, path: Path | str) -> Path:
    """Write a volume with its exact grid, in the format that the suffix names.

    Parameters
    ----------
    volume
        Modality, padding, frame of reference and history are kept with it, so that `tomolens.read_volume` gives the
        same volume back.
    path
        Ends in ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``. What stands there is replaced once the new file is whole.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    OutputError
        If the suffix is another, the format cannot hold the grid, or the file cannot be written.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if suffix not in WRITE_SUFFIXES:
        accepted = ", ".join(WRITE_SUFFIXES)
        raise OutputError(f"{path}: volumes are written as {accepted}, not as {suffix or 'a name without suffix'}.")
    write = write_nifti if suffix in NIFTI_SUFFIXES else write_itk
    try:
        with whole_file(path) as temporary:
            write(volume, temporary, facts_of(volume))
    except (OSError, RuntimeError) as failed:
        if isinstance(failed, OutputError):
            raise
        raise OutputError(f"{path} cannot be written: {failed}.") from failed
    return path
