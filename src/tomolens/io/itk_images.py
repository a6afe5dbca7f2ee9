"""NRRD and MetaImage in and out, through SimpleITK, whose world is LPS mm like ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tomolens.core.errors import OutputError, ReadError
from tomolens.core.grid import Grid
from tomolens.io.rescale import rescaled

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

_FACTS = "tomolens"


def read_itk(path: Path) -> tuple[NDArray[Any], Grid, dict[str, Any]]:
    """Voxels (int16 or float32), their grid, and the facts that `write_itk` left in the header.

    Raises
    ------
    ReadError
        If the file is damaged or does not hold one 3D image of numbers.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as broken:
        raise ReadError(f"{path}: not a readable image file ({str(broken).splitlines()[-1].strip()}).") from broken
    channels = image.GetNumberOfComponentsPerPixel()
    if image.GetDimension() != 3 or channels != 1:
        raise ReadError(
            f"{path}: {image.GetDimension()} dimensions with {channels} values a voxel, not one 3D image of numbers."
        )
    facts = _facts(image)
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, :3] = directions[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    voxels = rescaled(sitk.GetArrayViewFromImage(image))
    return voxels, Grid(voxels.shape, affine, facts.get("frame_of_reference")), facts


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
