"""One PNG that shows what was segmented in a series: slices in colour, and the structures with their volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import OutputError
from tomolens.core.hanging import INDEX_NAMES, Plane
from tomolens.core.label_picture import coloured_slice, fullest_planes, hex_colour, told
from tomolens.reports.sheet import (
    DIM,
    FOOT,
    GAP,
    GROUP_GAP,
    MARGIN,
    TEXT,
    TILE,
    WIDTH,
    Sheet,
    below_overview,
    draw_index,
    draw_letters,
    draw_pixels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomolens.core.segmentation import Segmentation, Structure

SHOWN = 60
"""So many structures are listed, the largest; the picture says how many more there are."""
TILES = 6
_COLUMNS = 3
_LINE = 0.25
_COLUMN = (WIDTH - 2 * MARGIN) / _COLUMNS
_LONGEST_NAME = 34
_NAME_AT, _VOLUME_AT = 0.25, _COLUMN - 0.5


def write_label_montage(segmentation: Segmentation, path: Path | str, *, title: str | None = None) -> Path:
    """Draw a segmentation into a PNG.

    On top the axial, coronal and sagittal slice with the most segmented voxels, then axial slices evenly from the first
    to the last with any, then each structure with its colour and volume. Slices hang as radiologists hang them, in true
    proportions, with the patient's sides as letters; slice, row and column count from 0. Where nothing was segmented
    the middle slices stand alone, and the picture says so.

    Parameters
    ----------
    segmentation
        With its volume.
    path
        Of the PNG; its folder is made where it is absent.
    title
        Above the picture; the volume's name where None.

    Raises
    ------
    OutputError
        If the segmentation does not hold its volume.
    """
    if segmentation.volume is None:
        raise OutputError("A montage needs the voxels: this segmentation was read from a file and holds no volume.")
    return _sheet(segmentation, title or segmentation.volume.name).save(path)


def _sheet(segmentation: Segmentation, title: str) -> Sheet:
    planes, run = fullest_planes(segmentation), segmentation.run
    listed = sorted(segmentation.found, key=lambda structure: -structure.voxels)[:SHOWN]
    tiles, tiles_top = _tiles(segmentation, planes[0]), below_overview(planes)
    legend_top = tiles_top + (TILE + GROUP_GAP if tiles else 0)
    rows = -(-len(listed) // _COLUMNS)
    sheet = Sheet.blank(legend_top + rows * _LINE + FOOT)
    rest = f" The {SHOWN} largest are listed." if len(segmentation) > SHOWN else ""
    sheet.head(title, f"{told(segmentation)}{rest}  ·  {run.model} {run.model_version}")
    _draw_overview(sheet, segmentation, planes)
    for n, plane in enumerate(tiles):
        _draw_tile(sheet, segmentation, plane, MARGIN + n * (TILE + GAP), tiles_top)
    for n, structure in enumerate(listed):
        _draw_structure(sheet, structure, MARGIN + n // rows * _COLUMN, legend_top + n % rows * _LINE)
    return sheet


def _tiles(segmentation: Segmentation, axial: Plane) -> list[Plane]:
    """Axial slices from the first to the last with a label, the head first as they are read."""
    across = tuple({0, 1, 2} - {axial.axis})
    filled = np.flatnonzero((segmentation.labels > 0).any(axis=across))
    if not len(filled):
        return []
    chosen = np.unique(np.linspace(filled[0], filled[-1], TILES).round().astype(int))
    upwards = segmentation.grid.axis_letters[axial.axis] == "S"
    return [Plane(segmentation.grid, axial.axis, int(index)) for index in (chosen[::-1] if upwards else chosen)]


def _draw_overview(sheet: Sheet, segmentation: Segmentation, planes: Sequence[Plane]) -> None:
    for plane, axes in sheet.overview(planes):
        draw_pixels(axes, plane, coloured_slice(segmentation, plane), "antialiased")
        draw_letters(axes, plane.letters)


def _draw_tile(sheet: Sheet, segmentation: Segmentation, plane: Plane, left: float, top: float) -> None:
    height, width = (TILE * mm / max(plane.size_mm) for mm in plane.size_mm)
    axes = sheet.axes(left + (TILE - width) / 2, top + (TILE - height) / 2, width, height)
    draw_pixels(axes, plane, coloured_slice(segmentation, plane), "antialiased")
    draw_index(axes, f"{INDEX_NAMES[plane.axis]} {plane.index}")


def _draw_structure(sheet: Sheet, structure: Structure, left: float, top: float) -> None:
    name = structure.name if len(structure.name) <= _LONGEST_NAME else f"{structure.name[:_LONGEST_NAME]}..."
    sheet.text(left, top, "■", color=hex_colour(structure.label), fontsize=12)
    sheet.text(left + _NAME_AT, top, f"{structure.label}  {name}", color=TEXT, fontsize=10)
    volume = f"{structure.volume_ml:.1f} ml"
    sheet.text(left + _VOLUME_AT, top, volume, color=DIM, fontsize=10, ha="right")
