"""NRRD and MetaImage in and out, through SimpleITK, whose world is LPS mm like ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from tomolens.core.errors import GeometryError, ReadError
from tomolens.core.grid import Grid
from tomolens.io.image_content import ImageContent
from tomolens.io.rescale import rescaled

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

_FORMATS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
"""Named, since ITK knows MetaImage by its suffix in lower case alone."""
_FACTS = "tomolens"
_SPACE = "NRRD_space"
_PATIENT_SPACE = "left-posterior-superior"
"""What ITK says of every NRRD that names a space of the patient, all of which it turns into this one."""
_NRRD_PLACE = (("space origin",), ("space directions",))
_META_PLACE = (
    ("Offset", "Position", "Origin"),
    ("TransformMatrix", "Rotation", "Orientation"),
    ("ElementSpacing", "ElementSize"),
)
"""What a header must say, each under one of the names that the format knows for it."""
_NRRD_UNITS = "space units"
_META_UNITS = "DistanceUnits"
_MM = ("mm", "", "?")
"""Millimetres, or no unit named."""


def read_itk(path: Path) -> ImageContent:
    """Read an NRRD or MetaImage file.

    Raises
    ------
    ReadError
        If the file is damaged or does not hold one 3D image of numbers.
    GeometryError
        If the file does not say where in the patient its image lies (an NRRD's space, origin and directions, a
        MetaImage's Offset, TransformMatrix and ElementSpacing), or says it in another unit than mm.
    """
    try:
        image = sitk.ReadImage(str(path), imageIO=_FORMATS[path.suffix.lower()])
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
    """ITK fills in what a file leaves unsaid: the origin 0, a spacing of 1 mm, mm for every unit."""
    magic, keys = _text_header(path)
    if not magic.startswith("NRRD"):
        _refuse_lacking(keys, _META_PLACE, path)
        _refuse_other_units([keys.get(_META_UNITS, "mm")], _META_UNITS, path)
        return
    space = image.GetMetaData(_SPACE) if image.HasMetaDataKey(_SPACE) else "absent"
    if space != _PATIENT_SPACE:
        raise GeometryError(f"{path}: its space is {space}: it does not say where in the patient its image lies.")
    keys = {name.lower(): value for name, value in keys.items()}
    _refuse_lacking(keys, _NRRD_PLACE, path)
    _refuse_other_units(re.findall(r'"(.*?)"', keys.get(_NRRD_UNITS, "")), _NRRD_UNITS, path)
    directions = keys["space directions"]
    if sum("nan" not in axis.lower() for axis in re.findall(r"\(.*?\)", directions)) != 3:
        raise GeometryError(f"{path}: its space directions are {directions}, not one vector for each of three axes.")


def _text_header(path: Path) -> tuple[str, dict[str, str]]:
    """The first line, and the fields of the text that opens an NRRD or MetaImage file."""
    with path.open("rb") as file:
        lines = [line.decode("latin-1").strip() for line in takewhile(bytes.strip, _up_to_data(file))]
    fields = (re.split(r"\s*=\s*|:\s+", line, maxsplit=1) for line in lines)
    return lines[0], {field[0]: field[1] for field in fields if len(field) == 2}


def _up_to_data(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines up to the one after which a MetaImage's voxels may follow."""
    for line in lines:
        yield line
        if line.startswith(b"ElementDataFile"):
            return


def _refuse_lacking(keys: Mapping[str, str], place: tuple[tuple[str, ...], ...], path: Path) -> None:
    for names in place:
        if not any(name in keys for name in names):
            raise GeometryError(f"{path}: its header has no {names[0]}: it does not say where its image lies.")


def _refuse_other_units(units: list[str], name: str, path: Path) -> None:
    other = [unit for unit in units if unit not in _MM]
    if other:
        raise GeometryError(f"{path}: its {name} is {other[0]!r}, not mm.")


def _facts(image: sitk.Image) -> dict[str, Any]:
    try:
        return dict(json.loads(image.GetMetaData(_FACTS))) if image.HasMetaDataKey(_FACTS) else {}
    except (ValueError, TypeError):
        return {}


def write_itk(volume: Volume, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a volume as NRRD or MetaImage, compressed. MetaImage's TransformMatrix cannot hold a sheared grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetDirection(volume.grid.directions[::-1].T.ravel().tolist())
    image.SetOrigin(volume.grid.affine[:3, 3].tolist())
    image.SetMetaData(_FACTS, json.dumps(facts))
    sitk.WriteImage(image, str(path), True)
