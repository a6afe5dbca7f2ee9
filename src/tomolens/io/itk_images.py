"""NRRD and MetaImage in and out, through SimpleITK, whose world is LPS mm like ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from tomolens.core.errors import GeometryError, OutputError, ReadError
from tomolens.core.grid import Grid
from tomolens.io.image_content import ImageContent
from tomolens.io.rescale import rescaled

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

_FACTS = "tomolens"
_SPACE = "NRRD_space"
_PATIENT_SPACE = "left-posterior-superior"
"""What ITK says of every NRRD that names a space of the patient, all of which it turns into this one."""


def read_itk(path: Path) -> ImageContent:
    """Read an NRRD or MetaImage file.

    Raises
    ------
    ReadError
        If the file is damaged or does not hold one 3D image of numbers.
    GeometryError
        If an NRRD file names no space of the patient.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as broken:
        raise ReadError(f"{path}: not a readable image file ({str(broken).splitlines()[-1].strip()}).") from broken
    axes, channels = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if axes != 3 or channels != 1:
        raise ReadError(f"{path}: {axes} dimensions with {channels} values a voxel, not one 3D image of numbers.")
    _refuse_nowhere(image, path)
    facts = _facts(image)
    affine = np.eye(4)
    affine[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    voxels = rescaled(sitk.GetArrayViewFromImage(image))
    return ImageContent(voxels, Grid(voxels.shape, affine, facts.get("frame_of_reference")), facts)


def _refuse_nowhere(image: sitk.Image, path: Path) -> None:
    if path.suffix.lower() in (".mha", ".mhd"):
        return
    space = image.GetMetaData(_SPACE) if image.HasMetaDataKey(_SPACE) else "absent"
    if space != _PATIENT_SPACE:
        raise GeometryError(f"{path}: its space is {space}: it does not say where in the patient its image lies.")


def _facts(image: sitk.Image) -> dict[str, Any]:
    try:
        return dict(json.loads(image.GetMetaData(_FACTS))) if image.HasMetaDataKey(_FACTS) else {}
    except (ValueError, TypeError):
        return {}


def write_itk(volume: Volume, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a volume as NRRD or MetaImage, compressed.

    Raises
    ------
    OutputError
        If the grid is sheared and the format is MetaImage, whose TransformMatrix is a rotation.
    """
    if volume.grid.is_sheared and path.suffix in (".mha", ".mhd"):
        raise OutputError(
            f"{path.name}: MetaImage cannot hold a sheared grid; write .nrrd or .nii.gz, or resample the tilt."
        )
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetDirection(volume.grid.directions[::-1].T.ravel().tolist())
    image.SetOrigin(volume.grid.affine[:3, 3].tolist())
    image.SetMetaData(_FACTS, json.dumps(facts))
    sitk.WriteImage(image, str(path), True)
