"""NIfTI in and out. NIfTI's world is RAS mm and its first array axis is the fastest; both end here.

A NIfTI-1 header holds its affine in float32, too coarse to give a grid back exactly. So a written file also carries, in
a header extension of text (code 6), the grid in full precision and what else NIfTI has no place for. The extension
counts only while it agrees with the header. That a GAN made it stands in the header too (descrip), which other programs
hand on.

What has no known place in the patient is written with qform and sform codes of 0, which says so to any reader; such a
file is read back where its extension gives the grid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from tomolens.core.errors import GeometryError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.kspace import NO_PLACE, is_placed
from tomolens.core.reconstruction import GENERATIVE, is_invented
from tomolens.io.image_content import ImageContent
from tomolens.io.rescale import rescaled

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KJI = [2, 1, 0, 3]
"""Columns of an affine over (i, j, k), reordered for (k, j, i), and back."""
_MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001, "unknown": 1.0}
_NIFTI2_BYTES = 540
"""The length of its header, which it opens with."""
_TEXT = 6
_SCANNER = 1
_SAME_PLACE_MM = 0.1
_FLOAT32_MM = 1e-3
"""More than float32 rounds away anywhere in an image of a patient."""


def read_nifti(path: Path) -> ImageContent:
    """Read a NIfTI-1 or NIfTI-2 file.

    Raises
    ------
    ReadError
        If the file is damaged or does not hold one 3D image of numbers.
    GeometryError
        If the header does not say where the image lies: sform and qform codes are both 0, and it is none of ours.
    """
    header, stored, slope, intercept = _opened(path)
    stored = stored.reshape(stored.shape[:3]) if stored.ndim > 3 and set(stored.shape[3:]) == {1} else stored
    if stored.ndim != 3 or stored.dtype.kind not in "iuf":
        raise ReadError(f"{path}: {stored.ndim} dimensions of {stored.dtype}, not one 3D image of numbers.")
    facts = _facts(header)
    voxels = rescaled(stored.transpose(2, 1, 0), slope, intercept)
    unplaced = header["sform_code"] <= 0 and header["qform_code"] <= 0
    affine = _unplaced(header, facts, path) if unplaced else _exact(_affine(header), facts, voxels.shape)
    grid = Grid(voxels.shape, affine, facts.get("frame_of_reference"))
    content = ImageContent(voxels, grid, facts, _notes(header))
    if GENERATIVE.encode() in header["descrip"].item() and not is_invented(content.history):
        content = replace(content, notes=(f"{GENERATIVE}: its header says so", *content.notes))
    if unplaced and is_placed(content.history):
        return replace(content, notes=(*content.notes, f"{NO_PLACE}: its sform and qform codes are 0"))
    return content


def _opened(path: Path) -> tuple[Any, NDArray[Any], float, float]:
    """The header, the stored array (i, j, k), and the scaling."""
    try:
        kind = _kind(path)
        image = kind.from_file_map({"image": nib.FileHolder(str(path))})
        stored = np.asarray(image.dataobj.get_unscaled())
    except Exception as broken:  # nibabel meets broken bytes with many kinds of error
        raise ReadError(f"{path}: not a readable NIfTI file ({broken}).") from broken
    return image.header, stored, float(image.dataobj.slope), float(image.dataobj.inter)


def _kind(path: Path) -> Any:
    """NIfTI-1 or -2. Of a suffix in mixed case, `nibabel.load` would open the namesake in lower case."""
    with ImageOpener(path) as file:
        first = file.read(4)
    is_second = _NIFTI2_BYTES in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
    return nib.Nifti2Image if is_second else nib.Nifti1Image


def _affine(header: Any) -> NDArray[np.float64]:
    """(k, j, i) to LPS mm, from the sform, else the qform."""
    ras = header.get_best_affine()
    ras[:3] *= _MM.get(header.get_xyzt_units()[0], 1.0)
    return np.asarray(_LPS_FROM_RAS @ ras)[:, _KJI]


def _unplaced(header: Any, facts: Mapping[str, Any], path: Path) -> NDArray[np.float64]:
    """The affine of a file of ours that says that its place is not known; its axes are not the patient's sides."""
    stated = np.asarray(facts.get("affine_kji_to_lps_mm", ()), float)
    if stated.shape != (4, 4) or not np.allclose(
        np.linalg.norm(stated[:3, :3], axis=0), header.get_zooms()[2::-1], rtol=1e-5
    ):
        raise GeometryError(f"{path}: sform and qform codes are 0: the file does not say where its image lies.")
    return stated


def _exact(affine: NDArray[np.float64], facts: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The exact affine of the facts, where it is the header's but for rounding."""
    exact = np.asarray(facts.get("affine_kji_to_lps_mm", affine), float)
    agrees = exact.shape == (4, 4) and _apart_mm(exact, affine, shape) <= _FLOAT32_MM
    return exact if agrees else affine


def _apart_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape: Iterable[int]) -> float:
    """How far apart two affines place a corner of one array, at most. An axis of one voxel counts too."""
    corners = np.array(list(product(*[(0, n) for n in shape], (1,))))
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max())


def _notes(header: Any) -> tuple[str, ...]:
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return ()
    apart = _apart_mm(sform, qform, header.get_data_shape()[:3])
    if apart <= _SAME_PLACE_MM:
        return ()
    return (f"its sform and qform place it up to {apart:.1f} mm apart; the sform was used",)


def _facts(header: Any) -> dict[str, Any]:
    for extension in header.extensions:
        if extension.get_code() == _TEXT:
            try:
                return dict(json.loads(extension.get_content())["tomolens"])
            except (ValueError, KeyError, TypeError):
                continue
    return {}


def write_nifti(volume: Volume, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a volume as NIfTI-1. A sheared grid stands in the sform alone: a qform cannot hold it."""
    ras = _LPS_FROM_RAS @ volume.grid.affine[:, _KJI]
    image = nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), ras if volume.placed else None)
    image.header.set_xyzt_units("mm", "sec")
    if is_invented(volume.history):
        image.header["descrip"] = GENERATIVE
    if volume.placed:
        image.set_sform(ras, _SCANNER)
        if volume.grid.is_sheared:
            image.header["qform_code"] = 0
        else:
            image.set_qform(ras, _SCANNER)
    else:
        image.header.set_zooms(volume.spacing_mm[::-1])
    exact = {"affine_kji_to_lps_mm": volume.grid.affine.tolist()}
    text = json.dumps({"tomolens": {**facts, **exact}}).encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_TEXT, text))
    nib.save(image, path)
