"""Slices as pictures: windowed pixels as PNG inside SVG, with boxes and patient letters. Needs no display."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tomolens.core.grid import Grid

if TYPE_CHECKING:
    from tomolens.core.finding import Detection, Finding

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
LUNG_WINDOW_HU = (-600.0, 1500.0)
"""(centre, width) in HU."""
_SHOWN_FINDINGS = 12


def windowed(pixels: NDArray[Any], center: float, width: float) -> NDArray[np.uint8]:
    """Map numbers to grey 0-255, linear over ``center +- width / 2`` (PS3.3 C.11.2.1.2, LINEAR_EXACT)."""
    grey = (np.asarray(pixels, np.float32) - (center - width / 2)) * (255.0 / width)
    return np.clip(grey, 0, 255).astype(np.uint8)


def default_window(voxels: NDArray[Any], modality: str) -> tuple[float, float]:
    """(centre, width): the lung window for CT, the 1st to 99.5th percentile for anything else."""
    if modality == "CT":
        return LUNG_WINDOW_HU
    step = tuple(slice(None, None, max(1, n // 64)) for n in voxels.shape)
    low, high = np.percentile(voxels[step], (1, 99.5))
    return float(low + high) / 2, max(float(high - low), 1e-6)


def slice_svg(
    voxels: NDArray[Any],
    grid: Grid,
    axis: int,
    index: int,
    window: tuple[float, float],
    findings: Sequence[Finding] = (),
    width_px: int = 260,
) -> str:
    """One slice across array axis ``axis`` as SVG, in true proportions, as a radiologist hangs it.

    Axial slices show the patient's right on the left, coronal and sagittal ones the head on top. ``findings`` are drawn as
    circles where their sphere cuts the slice. The letters on the edges follow the grid.
    """
    rows, columns, flips = _hanging(grid, axis)
    pixels = np.take(voxels, index, axis)
    pixels = pixels if rows < columns else pixels.T
    pixels = pixels[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    height_mm, width_mm = (grid.shape[a] * grid.spacing_mm[a] for a in (rows, columns))
    marks = "".join(_circle(grid, f, axis, index, (rows, columns), flips) for f in findings)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width_px}" viewBox="0 0 {width_mm:.1f} {height_mm:.1f}"'
        f' style="background:black" role="img">'
        f'<image width="{width_mm:.2f}" height="{height_mm:.2f}" preserveAspectRatio="none" href="{_png_uri(pixels, window)}"/>'
        f"{marks}{_letters(grid, (rows, columns), flips, (height_mm, width_mm))}</svg>"
    )


def _hanging(grid: Grid, axis: int) -> tuple[int, int, tuple[bool, bool]]:
    """Array axes for picture rows and columns, and whether each is flipped, to hang the slice as radiologists do.

    Rows go towards I or P, columns towards L, or towards P in a sagittal slice.
    """
    letters = grid.axis_letters
    rank = {"S": 0, "I": 0, "A": 1, "P": 1, "L": 2, "R": 2}
    rows, columns = sorted((a for a in range(3) if a != axis), key=lambda a: rank[letters[a]])
    return rows, columns, (letters[rows] in "SA", letters[columns] in "RA")


def _picture_mm(
    grid: Grid, kji: NDArray[np.float64], axes: tuple[int, int], flips: tuple[bool, bool]
) -> tuple[float, float]:
    """(y, x) of a voxel index in the picture, in mm from its upper left corner."""
    steps = [grid.shape[a] - 1 - kji[a] if flip else kji[a] for a, flip in zip(axes, flips, strict=True)]
    y, x = ((step + 0.5) * grid.spacing_mm[a] for step, a in zip(steps, axes, strict=True))
    return float(y), float(x)


def _circle(
    grid: Grid, finding: Finding, axis: int, index: int, axes: tuple[int, int], flips: tuple[bool, bool]
) -> str:
    kji = grid.to_kji(finding.center_lps_mm)
    off_mm = abs(kji[axis] - index) * grid.spacing_mm[axis]
    radius = max(finding.diameter_mm / 2, grid.spacing_mm[axis] / 2)
    if off_mm > radius:
        return ""
    y, x = _picture_mm(grid, kji, axes, flips)
    shown = finding.diameter_mm / 2 + 3
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shown:.1f}" fill="none" stroke="#ffd400" stroke-width="1.5"/>'
        f'<text x="{x + shown + 1:.1f}" y="{y - shown + 2:.1f}" fill="#ffd400" font-size="11" font-family="sans-serif">'
        f"{finding.score:.2f}</text>"
    )


def _letters(grid: Grid, axes: tuple[int, int], flips: tuple[bool, bool], size_mm: tuple[float, float]) -> str:
    down, right = (
        OPPOSITE[grid.axis_letters[a]] if flip else grid.axis_letters[a] for a, flip in zip(axes, flips, strict=True)
    )
    height, width = size_mm
    em = max(width, height) / 18
    places = (
        (OPPOSITE[right], em * 0.6, height / 2),
        (right, width - em * 0.6, height / 2),
        (OPPOSITE[down], width / 2, em * 0.9),
        (down, width / 2, height - em * 0.3),
    )
    return "".join(
        f'<text x="{x:.1f}" y="{y:.1f}" fill="white" font-size="{em:.1f}" text-anchor="middle" font-family="sans-serif">{c}</text>'
        for c, x, y in places
    )


def _png_uri(pixels: NDArray[Any], window: tuple[float, float]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(windowed(pixels, *window)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def volume_html(voxels: NDArray[Any], grid: Grid, caption: str, modality: str = "CT") -> str:
    """The three central slices side by side."""
    window = default_window(voxels, modality)
    middle = [n // 2 for n in grid.shape]
    pictures = "".join(slice_svg(voxels, grid, axis, middle[axis], window) for axis in range(3))
    return f"<figure style='margin:0'>{pictures}<figcaption>{escape(caption)}</figcaption></figure>"


def detection_html(detection: Detection) -> str:
    """The table of findings, each with its three slices where the volume is at hand."""
    from tomolens.core.finding import RESEARCH_USE

    findings = detection.findings
    plural = "" if len(findings) == 1 else "s"
    head = f"<p><b>{len(findings)} finding{plural}</b> at score &ge; {detection.min_score:.2f} by {escape(detection.run.model)}"
    rows = "".join(_finding_row(detection, n, f) for n, f in enumerate(findings[:_SHOWN_FINDINGS], start=1))
    rest = len(findings) - _SHOWN_FINDINGS
    more = f"<p>and {rest} more: <code>to_dataframe()</code> has them all</p>" if rest > 0 else ""
    titles = ("", "score", "diameter mm", "x, y, z mm (LPS)", "slice", "axial, coronal, sagittal")
    header = "".join(f"<th>{title}</th>" for title in titles)
    table = f"<table><tr>{header}</tr>{rows}</table>" if findings else ""
    return f"{head}</p>{table}{more}<p><small>{RESEARCH_USE}</small></p>"


def _finding_row(detection: Detection, number: int, finding: Finding) -> str:
    x, y, z = finding.center_lps_mm
    cells = (
        str(number),
        f"{finding.score:.2f}",
        f"{finding.diameter_mm:.1f}",
        f"{x:.1f}, {y:.1f}, {z:.1f}",
        str(detection.slice_of(finding)),
        finding_svgs(detection, finding),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def finding_svgs(detection: Detection, finding: Finding, width_px: int = 180) -> str:
    """Axial, coronal and sagittal slices through a finding's centre; empty where the volume is not at hand."""
    volume = detection.volume
    if volume is None:
        return ""
    window = default_window(volume.voxels, volume.modality)
    center = np.clip(np.round(volume.grid.to_kji(finding.center_lps_mm)), 0, np.asarray(volume.shape) - 1).astype(int)
    order, _ = volume.grid.canonical_order
    return "".join(
        slice_svg(volume.voxels, volume.grid, axis, int(center[axis]), window, (finding,), width_px) for axis in order
    )
