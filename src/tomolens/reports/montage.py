"""One PNG that shows where the findings of a series lie and what each looks like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.patches import Circle

from tomolens.core.errors import OutputError
from tomolens.core.hanging import INDEX_NAMES, Plane, standard_axes
from tomolens.core.picture import (
    FIELD_MM,
    MARK_COLOUR,
    default_window,
    mark_radius_mm,
    percentile_window,
    shows,
    windowed,
)
from tomolens.reports.sheet import (
    DIM,
    FOOT,
    GAP,
    GROUP_GAP,
    LABEL,
    MARGIN,
    OUTLINE,
    TILE,
    Sheet,
    below_overview,
    draw_index,
    draw_letters,
    draw_pixels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tomolens.core.finding import Detection, Finding
    from tomolens.core.volume import Volume

SHOWN = 12
"""So many findings are drawn, the surest; the picture says how many more there are."""


def write_montage(detection: Detection, path: Path | str, *, title: str | None = None) -> Path:
    """Draw the findings of one series into a PNG.

    On top the patient from the front and from the left (the mean along each line of sight) and one axial slice, with
    every finding's number; below, each finding in an axial, coronal and sagittal slice through its centre, 80 mm wide,
    with a circle 2 mm outside its edge. Slices hang as radiologists hang them, in true proportions, with the patient's
    sides as letters; slice, row and column count from 0. Without findings the upper row stands alone.

    Parameters
    ----------
    detection
        With its volume.
    path
        Of the PNG; its folder is made where it is absent.
    title
        Above the picture; the volume's name where None.

    Raises
    ------
    OutputError
        If the detection does not hold its volume.
    """
    if detection.volume is None:
        raise OutputError("A montage needs the voxels: this detection was read from a file and holds no volume.")
    return _sheet(detection, detection.volume, title or detection.volume.name).save(path)


def _sheet(detection: Detection, volume: Volume, title: str) -> Sheet:
    shown = detection.findings[:SHOWN]
    planes = _overview_planes(volume, shown)
    first_row = below_overview(planes)
    row_height = LABEL + TILE + GROUP_GAP
    height = first_row + row_height * ((len(shown) + 1) // 2) + FOOT
    sheet = Sheet.blank(height)
    sheet.head(title, _told(detection))
    _draw_overview(sheet, volume, planes, shown)
    for n, finding in enumerate(shown):
        left = MARGIN + (n % 2) * (3 * TILE + 2 * GAP + GROUP_GAP)
        _draw_finding(sheet, volume, n + 1, finding, (left, first_row + row_height * (n // 2)))
    return sheet


def _told(detection: Detection) -> str:
    count, run = len(detection.findings), detection.run
    found = f"{count} finding{'' if count == 1 else 's'}" if count else "No finding"
    rest = f"; the {SHOWN} surest are drawn" if count > SHOWN else ""
    return f"{found} with a score of at least {detection.min_score:.2f}{rest}  ·  {run.model} {run.model_version}"


def _overview_planes(volume: Volume, findings: Sequence[Finding]) -> tuple[Plane, Plane, Plane]:
    """The mean from the front and from the left, and the axial slice of the surest finding, or the middle one."""
    grid = volume.grid
    axial, coronal, sagittal = standard_axes(grid)
    surest = findings[0].center_lps_mm if findings else grid.to_mm([(n - 1) / 2 for n in grid.shape])
    return Plane(grid, coronal, None), Plane(grid, sagittal, None), Plane.through(grid, axial, surest)


def _draw_overview(sheet: Sheet, volume: Volume, planes: Sequence[Plane], findings: Sequence[Finding]) -> None:
    marks = [(str(number), finding) for number, finding in enumerate(findings, start=1)]
    for plane, axes in sheet.overview(planes):
        _draw_plane(axes, volume, plane, marks)


def _draw_finding(sheet: Sheet, volume: Volume, number: int, finding: Finding, corner: tuple[float, float]) -> None:
    left, top = corner
    x, y, z = finding.center_lps_mm
    planes = [Plane.through(volume.grid, axis, finding.center_lps_mm, FIELD_MM) for axis in standard_axes(volume.grid)]
    title = f"{number}   score {finding.score:.2f}   Ø {finding.diameter_mm:.1f} mm   {finding.kind}".rstrip()
    place = f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS)"
    sheet.text(left, top + LABEL - 0.1, title, color=MARK_COLOUR, fontsize=10.5, weight="bold")
    sheet.text(left + 3 * TILE + 2 * GAP, top + LABEL - 0.1, place, color=DIM, fontsize=9, ha="right")
    for n, plane in enumerate(planes):
        axes = sheet.axes(left + n * (TILE + GAP), top + LABEL, TILE, TILE)
        _draw_plane(axes, volume, plane, [("", finding)])
        draw_index(axes, f"{INDEX_NAMES[plane.axis]} {plane.index}")


def _draw_plane(axes: Axes, volume: Volume, plane: Plane, marks: Sequence[tuple[str, Finding]]) -> None:
    pixels = plane.pixels(volume.voxels)
    window = percentile_window(pixels) if plane.index is None else default_window(volume.voxels, volume.modality)
    draw_pixels(axes, plane, windowed(pixels, *window))
    for label, finding in marks:
        if shows(plane, finding):
            _draw_mark(axes, plane, label, finding)
    draw_letters(axes, plane.letters)


def _draw_mark(axes: Axes, plane: Plane, label: str, finding: Finding) -> None:
    place, radius = plane.place(finding.center_lps_mm), mark_radius_mm(finding)
    axes.add_patch(Circle((place.x_mm, place.y_mm), radius, fill=False, color=MARK_COLOUR, linewidth=1.4))
    edge = 0.75 * radius
    axes.text(
        place.x_mm + edge,
        place.y_mm - edge,
        label,
        color=MARK_COLOUR,
        fontsize=9,
        clip_on=True,
        path_effects=OUTLINE,
    )
