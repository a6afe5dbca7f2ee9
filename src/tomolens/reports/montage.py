"""One PNG that shows where the findings of a series lie and what each looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from tomolens.core.errors import OutputError
from tomolens.core.finding import RESEARCH_USE, Detection, Finding
from tomolens.core.hanging import INDEX_NAMES, Letters, Plane, standard_axes
from tomolens.core.picture import (
    FIELD_MM,
    MARK_COLOUR,
    default_window,
    mark_radius_mm,
    percentile_window,
    shows,
    windowed,
)
from tomolens.io.atomic import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tomolens.core.volume import Volume

SHOWN = 12
"""So many findings are drawn, the surest; the picture says how many more there are."""

_WIDTH, _MARGIN, _GAP = 13.0, 0.25, 0.06
_HEAD, _LABEL, _FOOT = 0.85, 0.36, 0.35
_GROUP_GAP = 0.3
_TALLEST = 5.0
_TILE = (_WIDTH - 2 * _MARGIN - _GROUP_GAP - 4 * _GAP) / 6
_DPI = 110
_BACKGROUND, _TEXT, _DIM = "#101214", "#f2f2f2", "#9aa0a6"
_OUTLINE = (withStroke(linewidth=1.6, foreground="black"),)


@dataclass(frozen=True)
class _Sheet:
    """A figure measured in inches from its upper left corner."""

    figure: Figure
    height: float

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / _WIDTH, 1 - y / self.height, text, va="baseline", parse_math=False, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """An empty picture whose upper left corner is at (x, y)."""
        rectangle = (x / _WIDTH, 1 - (y + height) / self.height, width / _WIDTH, height / self.height)
        axes = self.figure.add_axes(rectangle)
        axes.set_axis_off()
        return axes


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
    path = Path(path)
    sheet = _sheet(detection, detection.volume, title or detection.volume.name)
    with whole_file(path) as temporary:
        sheet.figure.savefig(temporary, format="png", facecolor=_BACKGROUND)
    return path


def _sheet(detection: Detection, volume: Volume, title: str) -> _Sheet:
    shown = detection.findings[:SHOWN]
    planes = _overview_planes(volume, shown)
    scale = _overview_scale(planes)
    first_row = _HEAD + _LABEL + scale * max(plane.size_mm[0] for plane in planes) + _GROUP_GAP
    row_height = _LABEL + _TILE + _GROUP_GAP
    height = first_row + row_height * ((len(shown) + 1) // 2) + _FOOT
    sheet = _Sheet(Figure(figsize=(_WIDTH, height), dpi=_DPI), height)
    _draw_head(sheet, detection, title)
    _draw_overview(sheet, volume, planes, shown, scale)
    for n, finding in enumerate(shown):
        left = _MARGIN + (n % 2) * (3 * _TILE + 2 * _GAP + _GROUP_GAP)
        _draw_finding(sheet, volume, n + 1, finding, (left, first_row + row_height * (n // 2)))
    sheet.text(_MARGIN, height - 0.15, RESEARCH_USE, color=_DIM, fontsize=9)
    return sheet


def _draw_head(sheet: _Sheet, detection: Detection, title: str) -> None:
    count, run = len(detection.findings), detection.run
    found = f"{count} finding{'' if count == 1 else 's'}" if count else "No finding"
    rest = f"; the {SHOWN} surest are drawn" if count > SHOWN else ""
    sheet.text(_MARGIN, 0.42, title, color=_TEXT, fontsize=15, weight="bold")
    line = f"{found} with a score of at least {detection.min_score:.2f}{rest}  ·  {run.model} {run.model_version}"
    sheet.text(_MARGIN, 0.72, line, color=_DIM, fontsize=11)


def _overview_planes(volume: Volume, findings: Sequence[Finding]) -> tuple[Plane, Plane, Plane]:
    """The mean from the front and from the left, and the axial slice of the surest finding, or the middle one."""
    grid = volume.grid
    axial, coronal, sagittal = standard_axes(grid)
    surest = findings[0].center_lps_mm if findings else grid.to_mm([(n - 1) / 2 for n in grid.shape])
    return Plane(grid, coronal, None), Plane(grid, sagittal, None), Plane.through(grid, axial, surest)


def _overview_scale(planes: Sequence[Plane]) -> float:
    """Inches a mm at which the overview fills the width, or is as tall as it may be."""
    room = _WIDTH - 2 * _MARGIN - 2 * _GROUP_GAP
    return min(room / sum(plane.size_mm[1] for plane in planes), _TALLEST / max(plane.size_mm[0] for plane in planes))


def _draw_overview(
    sheet: _Sheet, volume: Volume, planes: Sequence[Plane], findings: Sequence[Finding], scale: float
) -> None:
    marks = [(str(number), finding) for number, finding in enumerate(findings, start=1)]
    left = _MARGIN
    for plane in planes:
        height, width = (scale * mm for mm in plane.size_mm)
        sheet.text(left, _HEAD + _LABEL - 0.1, plane.caption, color=_DIM, fontsize=9)
        _draw_plane(sheet.axes(left, _HEAD + _LABEL, width, height), volume, plane, marks)
        left += width + _GROUP_GAP


def _draw_finding(sheet: _Sheet, volume: Volume, number: int, finding: Finding, corner: tuple[float, float]) -> None:
    left, top = corner
    x, y, z = finding.center_lps_mm
    planes = [Plane.through(volume.grid, axis, finding.center_lps_mm, FIELD_MM) for axis in standard_axes(volume.grid)]
    title = f"{number}   score {finding.score:.2f}   Ø {finding.diameter_mm:.1f} mm"
    place = f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS)"
    sheet.text(left, top + _LABEL - 0.1, title, color=MARK_COLOUR, fontsize=10.5, weight="bold")
    sheet.text(left + 3 * _TILE + 2 * _GAP, top + _LABEL - 0.1, place, color=_DIM, fontsize=9, ha="right")
    for n, plane in enumerate(planes):
        axes = sheet.axes(left + n * (_TILE + _GAP), top + _LABEL, _TILE, _TILE)
        _draw_plane(axes, volume, plane, [("", finding)])
        index = f"{INDEX_NAMES[plane.axis]} {plane.index}"
        axes.text(
            0.02, 0.98, index, color=_TEXT, fontsize=7.5, va="top", path_effects=_OUTLINE, transform=axes.transAxes
        )


def _draw_plane(axes: Axes, volume: Volume, plane: Plane, marks: Sequence[tuple[str, Finding]]) -> None:
    pixels = plane.pixels(volume.voxels)
    window = percentile_window(pixels) if plane.index is None else default_window(volume.voxels, volume.modality)
    height, width = plane.size_mm
    axes.imshow(
        windowed(pixels, *window), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="bilinear"
    )
    for label, finding in marks:
        if shows(plane, finding):
            _draw_mark(axes, plane, label, finding)
    _draw_letters(axes, plane.letters)


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
        path_effects=_OUTLINE,
    )


def _draw_letters(axes: Axes, letters: Letters) -> None:
    style: dict[str, Any] = {
        "color": _TEXT,
        "fontsize": 9,
        "ha": "center",
        "path_effects": _OUTLINE,
        "transform": axes.transAxes,
    }
    axes.text(0.035, 0.5, letters.left, va="center", **style)
    axes.text(0.965, 0.5, letters.right, va="center", **style)
    axes.text(0.5, 0.98, letters.top, va="top", **style)
    axes.text(0.5, 0.02, letters.bottom, va="bottom", **style)
