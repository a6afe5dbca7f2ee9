"""Segmented structures as colours: over a slice, in a legend, as HTML. Needs no display."""

from __future__ import annotations

import colorsys
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomolens.core.hanging import Plane, standard_axes
from tomolens.core.picture import percentile_window, slice_svg, whole_scale, windowed

if TYPE_CHECKING:
    from tomolens.core.segmentation import Segmentation, Structure

OPACITY = 0.45
"""Of the colour over the grey of the scan."""
LABEL_WINDOW_HU = (0.0, 1000.0)
"""(centre, width) of the CT under the colours, in HU: organs, fat and bone can all be told apart."""
_GOLDEN = 0.6180339887
_SHOWN_STRUCTURES = 40


def colour_of(label: int) -> tuple[float, float, float]:
    """Red, green and blue of a label, 0 to 1: the same wherever it is shown; neighbouring labels differ much."""
    hue = (0.02 + (label - 1) * _GOLDEN) % 1.0
    return colorsys.hsv_to_rgb(hue, (0.85, 0.5)[label // 7 % 2], (1.0, 0.75)[label // 5 % 2])


def hex_colour(label: int) -> str:
    """`colour_of` as HTML and matplotlib write it, e.g. ``#ff4d26``."""
    return "#" + "".join(f"{round(part * 255):02x}" for part in colour_of(label))


def overlaid(grey: NDArray[np.uint8], labels: NDArray[Any], opacity: float = OPACITY) -> NDArray[np.uint8]:
    """Colour a windowed slice by its labels.

    Parameters
    ----------
    grey, labels
        (rows, columns) of one slice, hung alike.

    Returns
    -------
    NDArray of uint8
        (rows, columns, red green blue); grey where the label is 0.
    """
    present, places = np.unique(labels, return_inverse=True)
    palette = np.array([colour_of(int(label)) for label in present]) * 255
    strength = np.where(present > 0, opacity, 0.0)[places].reshape(*labels.shape, 1)
    colours = palette[places].reshape(*labels.shape, 3)
    return np.asarray(np.rint(grey[..., None] * (1 - strength) + colours * strength), np.uint8)


def coloured_slice(segmentation: Segmentation, plane: Plane) -> NDArray[np.uint8]:
    """(rows, columns, 3) of one hung slice of a segmentation's volume under its labels; grey 0 without a volume."""
    labels, volume = plane.pixels(segmentation.labels), segmentation.volume
    if volume is None:
        return overlaid(np.zeros(labels.shape, np.uint8), labels, 1.0)
    window = LABEL_WINDOW_HU if volume.modality == "CT" else percentile_window(volume.voxels)
    return overlaid(windowed(plane.pixels(volume.voxels), *window), labels)


def fullest_planes(segmentation: Segmentation) -> list[Plane]:
    """The axial, coronal and sagittal slice with the most segmented voxels; the middle ones where there are none."""
    grid, inside = segmentation.grid, segmentation.labels > 0
    planes = []
    for axis in standard_axes(grid):
        filled = inside.sum(axis=tuple({0, 1, 2} - {axis}))
        planes.append(Plane(grid, axis, int(filled.argmax()) if filled.any() else grid.shape[axis] // 2))
    return planes


def told(segmentation: Segmentation) -> str:
    """How many of the model's structures there are, as a sentence."""
    found, known = len(segmentation), len(segmentation.names)
    if not found:
        return f"Nothing was segmented: none of the model's {known} structures was found."
    return f"{found} of the model's {known} structures {'was' if found == 1 else 'were'} segmented."


def segmentation_html(segmentation: Segmentation) -> str:
    """The fullest slices in colour, and the structures with their volumes."""
    from tomolens.core.finding import RESEARCH_USE

    planes, run = fullest_planes(segmentation), segmentation.run
    scale = whole_scale(planes)
    pictures = "".join(slice_svg(plane, coloured_slice(segmentation, plane), px_per_mm=scale) for plane in planes)
    head = f"<p><b>{escape(told(segmentation))}</b> {escape(run.model)} {escape(run.model_version)}</p>"
    return f"{head}<div>{pictures}</div>{_table(segmentation.found)}<p><small>{RESEARCH_USE}</small></p>"


def _table(found: tuple[Structure, ...]) -> str:
    if not found:
        return ""
    head = "<tr><th></th><th>label</th><th>structure</th><th>volume, ml</th></tr>"
    rest = len(found) - _SHOWN_STRUCTURES
    more = f"<p>and {rest} more: <code>to_dataframe()</code> has them all</p>" if rest > 0 else ""
    return f"<table>{head}{''.join(map(_row, found[:_SHOWN_STRUCTURES]))}</table>{more}"


def _row(structure: Structure) -> str:
    swatch = f'<span style="color:{hex_colour(structure.label)}">&#9632;</span>'
    cells = (swatch, str(structure.label), escape(structure.name), f"{structure.volume_ml:.1f}")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
