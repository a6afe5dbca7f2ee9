"""Slices and findings as HTML: windowed PNG inside SVG, with circles and patient letters. Needs no display."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomolens.core.hanging import Plane, standard_axes

if TYPE_CHECKING:
    from tomolens.core.finding import Detection, Finding
    from tomolens.core.grid import Grid
    from tomolens.core.volume import Volume

LUNG_WINDOW_HU = (-600.0, 1500.0)
"""(centre, width) in HU."""
MARK_COLOUR = "#ffd21f"
FIELD_MM = 80.0
"""Width of the square that is shown around a finding."""
_SHOWN_FINDINGS = 12
_WHOLE_PX = 260
_FIELD_PX = 150


def windowed(pixels: NDArray[Any], center: float, width: float) -> NDArray[np.uint8]:
    """Map numbers to grey 0-255, linear over ``center +- width / 2`` (PS3.3 C.11.2.1.2, LINEAR_EXACT)."""
    grey = (np.asarray(pixels, np.float32) - (center - width / 2)) * (255.0 / width)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def default_window(voxels: NDArray[Any], modality: str) -> tuple[float, float]:
    """(centre, width): the lung window for CT, the 1st to 99.5th percentile for anything else."""
    return LUNG_WINDOW_HU if modality == "CT" else percentile_window(voxels)


def percentile_window(pixels: NDArray[Any]) -> tuple[float, float]:
    """(centre, width) from the 1st to the 99.5th percentile of a coarse sample."""
    step = tuple(slice(None, None, max(1, n // 64)) for n in pixels.shape)
    low, high = np.percentile(pixels[step], (1, 99.5))
    return float(low + high) / 2, max(float(high - low), 1e-6)


def mark_radius_mm(finding: Finding) -> float:
    """Radius of the circle that is drawn around a finding: 2 mm outside its edge, so that it hides nothing."""
    return finding.diameter_mm / 2 + 2


def shows(plane: Plane, finding: Finding) -> bool:
    """Whether a slice cuts a finding's sphere, or is the nearest slice to it."""
    reach = max(finding.diameter_mm, plane.grid.spacing_mm[plane.axis]) / 2
    return plane.place(finding.center_lps_mm).off_mm <= reach


def slice_svg(
    plane: Plane,
    pixels: NDArray[Any],
    window: tuple[float, float] | None = None,
    marks: Iterable[tuple[str, Finding]] = (),
    px_per_mm: float = 0.7,
    letters: bool = True,
) -> str:
    """Draw a hung slice in true proportions.

    Parameters
    ----------
    plane, pixels
        The slice and its numbers, ``plane.pixels(voxels)``.
    window
        (centre, width) in the unit of the voxels; None where ``pixels`` are colours already, (rows, columns, 3) uint8.
    marks
        A label and a finding each, drawn as a circle where the slice cuts the finding.
    px_per_mm
        Size on the screen.
    letters
        Whether the patient's sides stand on the edges: not where nobody knows them.
    """
    height, width = plane.size_mm
    em = 11 / px_per_mm
    circles = "".join(_circle(plane, label, finding, em) for label, finding in marks if shows(plane, finding))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * px_per_mm:.0f}" height="{height * px_per_mm:.0f}"'
        f' viewBox="0 0 {width:.2f} {height:.2f}" font-family="sans-serif" font-size="{em:.2f}"'
        f' style="background:black;margin:1px;vertical-align:top" role="img" aria-label="{escape(plane.caption)}">'
        f"<title>{escape(plane.caption)}</title>"
        f'<image width="{width:.2f}" height="{height:.2f}" preserveAspectRatio="none"'
        f' href="{_png_uri(pixels, window)}"/>{circles}{_letters(plane, em) if letters else ""}</svg>'
    )


def _circle(plane: Plane, label: str, finding: Finding, em: float) -> str:
    place = plane.place(finding.center_lps_mm)
    x, y, radius = place.x_mm, place.y_mm, mark_radius_mm(finding)
    right, above = x + radius * 0.75 + em / 5, y - radius * 0.75
    return (
        f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="none" stroke="{MARK_COLOUR}"'
        f' stroke-width="{em / 8:.2f}"/>'
        f'<text x="{right:.2f}" y="{above:.2f}" fill="{MARK_COLOUR}" {_outline(em)}>{escape(label)}</text>'
    )


def _letters(plane: Plane, em: float) -> str:
    (height, width), letters = plane.size_mm, plane.letters
    places = (
        (letters.left, em * 0.7, height / 2 + em / 3),
        (letters.right, width - em * 0.7, height / 2 + em / 3),
        (letters.top, width / 2, em),
        (letters.bottom, width / 2, height - em * 0.35),
    )
    style = f'fill="white" {_outline(em)} text-anchor="middle"'
    return "".join(f'<text x="{x:.2f}" y="{y:.2f}" {style}>{letter}</text>' for letter, x, y in places)


def _outline(em: float) -> str:
    """So that text is legible on any grey."""
    return f'stroke="black" stroke-width="{em / 5:.2f}" paint-order="stroke"'


def _png_uri(pixels: NDArray[Any], window: tuple[float, float] | None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels if window is None else windowed(pixels, *window)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def volume_html(voxels: NDArray[Any], grid: Grid, caption: str, modality: str = "CT") -> str:
    """The central axial, coronal and sagittal slice side by side, at one scale."""
    window = default_window(voxels, modality)
    planes = [Plane(grid, axis, grid.shape[axis] // 2) for axis in standard_axes(grid)]
    scale = whole_scale(planes)
    pictures = "".join(slice_svg(plane, plane.pixels(voxels), window, px_per_mm=scale) for plane in planes)
    return f"<figure style='margin:0'>{pictures}<figcaption>{escape(caption)}</figcaption></figure>"


def whole_scale(planes: Iterable[Plane]) -> float:
    """Pixels a mm at which whole slices side by side are shown: the longest edge is 260 pixels."""
    return _WHOLE_PX / max(max(plane.size_mm) for plane in planes)


def detection_html(detection: Detection) -> str:
    """Where the findings lie in the patient, and their table with a picture of each where the volume is at hand."""
    from tomolens.core.finding import RESEARCH_USE

    count, run = len(detection.findings), detection.run
    head = (
        f"<p><b>{count} finding{'' if count == 1 else 's'}</b> with a score of at least {detection.min_score:.2f}"
        f" by {escape(run.model)} {escape(run.model_version)}</p>"
    )
    overview = overview_html(detection.volume, detection.findings) if detection.volume is not None else ""
    return f"{head}{overview}{_table(detection)}<p><small>{RESEARCH_USE}</small></p>"


def overview_html(volume: Volume, findings: Iterable[Finding]) -> str:
    """The coronal and sagittal mean of a volume with every finding's number, as on a plain radiograph."""
    planes = [Plane(volume.grid, axis, None) for axis in standard_axes(volume.grid)[1:]]
    marks = [(str(number), finding) for number, finding in enumerate(findings, start=1)]
    scale = whole_scale(planes)
    means = [plane.pixels(volume.voxels) for plane in planes]
    return "".join(
        slice_svg(plane, mean, percentile_window(mean), marks, scale) for plane, mean in zip(planes, means, strict=True)
    )


def _table(detection: Detection) -> str:
    findings = detection.findings
    if not findings:
        return ""
    pictured = detection.volume is not None
    titles = [
        "",
        "score",
        "diameter<br>mm",
        "texture, malignancy",
        "x, y, z mm<br>(LPS)",
        "slice",
        *["axial, coronal, sagittal"] * pictured,
    ]
    rows = "".join(_row(detection, n, finding) for n, finding in enumerate(findings[:_SHOWN_FINDINGS], start=1))
    rest = len(findings) - _SHOWN_FINDINGS
    more = f"<p>and {rest} more: <code>to_dataframe()</code> has them all</p>" if rest > 0 else ""
    return f"<table><tr>{''.join(f'<th>{title}</th>' for title in titles)}</tr>{rows}</table>{more}"


def _row(detection: Detection, number: int, finding: Finding) -> str:
    x, y, z = finding.center_lps_mm
    cells = [
        str(number),
        f"{finding.score:.2f}",
        f"{finding.diameter_mm:.1f}",
        finding.kind,
        f"{x:.1f}, {y:.1f}, {z:.1f}",
        str(detection.slice_of(finding)),
    ]
    if detection.volume is not None:
        cells.append(f'<div style="white-space:nowrap">{finding_svgs(detection.volume, finding)}</div>')
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def finding_svgs(volume: Volume, finding: Finding) -> str:
    """Axial, coronal and sagittal slice through a finding's centre, 80 mm wide each."""
    window = default_window(volume.voxels, volume.modality)
    center = finding.center_lps_mm
    planes = [Plane.through(volume.grid, axis, center, FIELD_MM) for axis in standard_axes(volume.grid)]
    return "".join(
        slice_svg(plane, plane.pixels(volume.voxels), window, [("", finding)], _FIELD_PX / FIELD_MM) for plane in planes
    )
