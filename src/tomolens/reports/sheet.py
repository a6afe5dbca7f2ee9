"""A picture measured in inches: the head, slices with the patient's sides as letters, the foot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from tomolens.core.finding import RESEARCH_USE
from tomolens.io.atomic import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from tomolens.core.hanging import Letters, Plane

WIDTH, MARGIN, GAP = 13.0, 0.25, 0.06
HEAD, LABEL, FOOT = 0.85, 0.36, 0.35
GROUP_GAP = 0.3
TILE = (WIDTH - 2 * MARGIN - GROUP_GAP - 4 * GAP) / 6
"""Edge of a small picture: six of them, in two groups of three, fill a row."""
BACKGROUND, TEXT, DIM = "#101214", "#f2f2f2", "#9aa0a6"
OUTLINE = (withStroke(linewidth=1.6, foreground="black"),)
_TALLEST = 5.0
_DPI = 110


@dataclass(frozen=True)
class Sheet:
    """A figure measured in inches from its upper left corner."""

    figure: Figure
    height: float

    @classmethod
    def blank(cls, height: float) -> Sheet:
        """A sheet of this height with the line on research use at its foot."""
        sheet = cls(Figure(figsize=(WIDTH, height), dpi=_DPI), height)
        sheet.text(MARGIN, height - 0.15, RESEARCH_USE, color=DIM, fontsize=9)
        return sheet

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a line as it stands."""
        self.figure.text(x / WIDTH, 1 - y / self.height, text, va="baseline", parse_math=False, **style)

    def head(self, title: str, line: str) -> None:
        """Write the title, and a line below it."""
        self.text(MARGIN, 0.42, title, color=TEXT, fontsize=15, weight="bold")
        self.text(MARGIN, 0.72, line, color=DIM, fontsize=11)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """An empty picture whose upper left corner is at (x, y)."""
        rectangle = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(rectangle)
        axes.set_axis_off()
        return axes

    def overview(self, planes: Sequence[Plane]) -> Iterator[tuple[Plane, Axes]]:
        """Three slices with an empty picture each, below the head in one row and at one scale, captions written."""
        scale, left = overview_scale(planes), MARGIN
        for plane in planes:
            height, width = (scale * mm for mm in plane.size_mm)
            self.text(left, HEAD + LABEL - 0.1, plane.caption, color=DIM, fontsize=9)
            yield plane, self.axes(left, HEAD + LABEL, width, height)
            left += width + GROUP_GAP

    def save(self, path: Path | str) -> Path:
        """Write the PNG, whole or not at all; its folder is made where it is absent."""
        path = Path(path)
        with whole_file(path) as temporary:
            self.figure.savefig(temporary, format="png", facecolor=BACKGROUND)
        return path


def below_overview(planes: Sequence[Plane]) -> float:
    """Where on a sheet what follows the overview of three slices begins."""
    return HEAD + LABEL + overview_scale(planes) * max(plane.size_mm[0] for plane in planes) + GROUP_GAP


def overview_scale(planes: Sequence[Plane]) -> float:
    """Inches a mm at which three slices fill the width, or are as tall as they may be."""
    room = WIDTH - 2 * MARGIN - 2 * GROUP_GAP
    return min(room / sum(plane.size_mm[1] for plane in planes), _TALLEST / max(plane.size_mm[0] for plane in planes))


def draw_pixels(axes: Axes, plane: Plane, pixels: NDArray[Any], interpolation: str = "bilinear") -> None:
    """Draw a hung slice, grey 0-255 or (rows, columns, 3) colours, in true proportions, in mm."""
    height, width = plane.size_mm
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation=interpolation)


def draw_index(axes: Axes, index: str) -> None:
    """Write which slice it is into its upper left corner."""
    axes.text(0.02, 0.98, index, color=TEXT, fontsize=7.5, va="top", path_effects=OUTLINE, transform=axes.transAxes)


def draw_letters(axes: Axes, letters: Letters) -> None:
    """Write the patient's sides on the edges."""
    style: dict[str, Any] = {
        "color": TEXT,
        "fontsize": 9,
        "ha": "center",
        "path_effects": OUTLINE,
        "transform": axes.transAxes,
    }
    axes.text(0.035, 0.5, letters.left, va="center", **style)
    axes.text(0.965, 0.5, letters.right, va="center", **style)
    axes.text(0.5, 0.98, letters.top, va="top", **style)
    axes.text(0.5, 0.02, letters.bottom, va="bottom", **style)
