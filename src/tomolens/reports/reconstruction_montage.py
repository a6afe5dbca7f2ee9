"""One PNG that shows a reconstruction: before, after, what was changed, and how sure it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.reconstruction import GENERATIVE
from tomolens.core.reconstruction_picture import WARNING_COLOUR, panels, told, views
from tomolens.reports.sheet import (
    DIM,
    FOOT,
    GAP,
    GROUP_GAP,
    HEAD,
    MARGIN,
    TEXT,
    WIDTH,
    Sheet,
    draw_letters,
    draw_pixels,
)

if TYPE_CHECKING:
    from tomolens.core.reconstruction import Reconstruction
    from tomolens.core.reconstruction_picture import Panel, Scale, View

_LINE = 0.27
_TITLES, _BELOW_TITLE = 0.85, 0.55
"""Height of the columns' titles with what stands below them, and of the latter alone; then comes the first caption."""
_BAR_HEIGHT, _BAR_WIDTH = 0.12, 0.5
"""Of a colour bar: inches, and the share of its column."""
_TALLEST_ROW = 4.0


def write_reconstruction_montage(made: Reconstruction, path: Path | str, *, title: str | None = None) -> Path:
    """Draw a reconstruction into a PNG.

    Columns are before, after, the classical method's result where there is one, after minus before, and the
    uncertainty; rows the axial, coronal and sagittal slice through the middle. Differences have a symmetric colour bar
    in HU or in % of the range. What a reader must be warned of, invented texture and checks that failed, stands above.

    Parameters
    ----------
    path
        Of the PNG; its folder is made where it is absent.
    title
        Above the picture; the volume's name where None.
    """
    return _sheet(made, title or made.volume.name).save(path)


def _sheet(made: Reconstruction, title: str) -> Sheet:
    columns, rows = panels(made), views(made)
    width = (WIDTH - 2 * MARGIN - (len(columns) - 1) * GAP) / len(columns)
    heights = [min(_TALLEST_ROW, width * view.plane.size_mm[0] / view.plane.size_mm[1]) for view in rows]
    top = HEAD + len(made.warnings) * _LINE + _TITLES
    sheet = Sheet.blank(top + sum(heights) + len(rows) * GROUP_GAP + FOOT)
    sheet.head(title, told(made))
    for n, warning in enumerate(made.warnings):
        sheet.text(MARGIN, HEAD + (n + 0.7) * _LINE, warning, color=WARNING_COLOUR, fontsize=11, weight="bold")
    for n, panel in enumerate(columns):
        _draw_title(sheet, panel, MARGIN + n * (width + GAP), top, width)
    for view, height in zip(rows, heights, strict=True):
        _draw_row(sheet, view, columns, (top, width, height))
        top += height + GROUP_GAP
    return sheet


def _draw_title(sheet: Sheet, panel: Panel, left: float, top: float, width: float) -> None:
    colour = WARNING_COLOUR if panel.warned else TEXT
    sheet.text(left, top - _BELOW_TITLE, panel.title, color=colour, fontsize=10.5, weight="bold")
    if panel.warned:
        sheet.text(left, top - _BELOW_TITLE + 0.2, GENERATIVE, color=colour, fontsize=8.5)
    if panel.scale is not None:
        _draw_bar(sheet, panel.scale, left, top - _BELOW_TITLE + 0.1, width)


def _draw_bar(sheet: Sheet, scale: Scale, left: float, top: float, width: float) -> None:
    """A colour bar with its ends."""
    low, high = scale.ends
    start, long = left + 0.42, width * _BAR_WIDTH
    ramp = np.linspace(-1 if scale.symmetric else 0, 1, 256) * scale.limit / scale.factor
    axes = sheet.axes(start, top, long, _BAR_HEIGHT)
    axes.imshow(scale.coloured(ramp)[None], aspect="auto", extent=(0, 1, 0, 1))
    sheet.text(start - 0.06, top + _BAR_HEIGHT, low, color=DIM, fontsize=9, ha="right")
    sheet.text(start + long + 0.06, top + _BAR_HEIGHT, high, color=DIM, fontsize=9)


def _draw_row(sheet: Sheet, view: View, columns: list[Panel], box: tuple[float, float, float]) -> None:
    top, width, height = box
    scale = min(width / view.plane.size_mm[1], height / view.plane.size_mm[0])
    tall, wide = (scale * mm for mm in view.plane.size_mm)
    sheet.text(MARGIN, top - 0.07, view.caption, color=DIM, fontsize=9)
    for n, panel in enumerate(columns):
        axes = sheet.axes(MARGIN + n * (width + GAP) + (width - wide) / 2, top, wide, tall)
        draw_pixels(axes, view.plane, panel.pixels(view.plane, view.window))
        if view.placed:
            draw_letters(axes, view.plane.letters)
