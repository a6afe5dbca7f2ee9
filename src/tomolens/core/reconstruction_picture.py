"""A reconstruction as pictures: before, after, the difference and the uncertainty side by side. Needs no display."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomolens.core.hanging import Plane, standard_axes
from tomolens.core.picture import LUNG_WINDOW_HU, percentile_window, slice_svg, windowed

if TYPE_CHECKING:
    from tomolens.core.reconstruction import Check, Reconstruction

SOFT_TISSUE_WINDOW_HU = (40.0, 400.0)
"""(centre, width) in HU."""
DIFFERENCE_COLOURS = ((115, 200, 255), (25, 90, 210), (0, 0, 0), (215, 85, 10), (255, 205, 90))
"""From the least to the largest, black where nothing was changed: blue is lower, orange higher than before."""
UNCERTAINTY_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""From 0 on."""
WARNING_COLOUR = "#ff8a65"
BEFORE = {"ct-denoising": "the scan", "mri-reconstruction": "zero-filled", "super-resolution": "cubic spline"}
"""What a result is compared with, by job."""
_STEPS = (1.0, 2.0, 5.0, 10.0)
_SAMPLED = 64
_PERCENT = 99.5
_PICTURE_PX = 190

Pixels = Callable[[Plane, tuple[float, float]], NDArray[np.uint8]]
"""A hung slice under a window: grey 0 to 255, or (rows, columns, 3) colours."""


@dataclass(frozen=True)
class Scale:
    """The ends of a colour bar: from ``-limit``, or 0 where it has one side alone, to ``limit``, in ``unit``.

    A number of the volume times ``factor`` is one in ``unit``.
    """

    limit: float
    unit: str
    factor: float
    colours: tuple[tuple[int, int, int], ...]
    symmetric: bool

    @property
    def ends(self) -> tuple[str, str]:
        """The least and the largest, as they stand beside the bar."""
        low = f"-{self.limit:g}" if self.symmetric else "0"
        return low, f"{'+' if self.symmetric else ''}{self.limit:g} {self.unit}"

    def coloured(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """(..., 3) colours; what lies beyond an end has that end's colour."""
        low = -self.limit if self.symmetric else 0.0
        share = np.clip((np.asarray(numbers, np.float32) * self.factor - low) / (self.limit - low), 0, 1)
        places = np.linspace(0, 1, len(self.colours))
        return np.stack([np.interp(share, places, part) for part in zip(*self.colours, strict=True)], -1).astype(
            np.uint8
        )


@dataclass(frozen=True)
class Panel:
    """One column of pictures: its title, what it shows of a slice, and its colour bar where it is coloured.

    ``warned`` says that a GAN made it.
    """

    title: str
    pixels: Pixels
    scale: Scale | None = None
    warned: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """One row of pictures: a slice, the window of its grey pictures, and whether the patient's sides are known."""

    plane: Plane
    window: tuple[float, float]
    caption: str
    placed: bool = True


def panels(made: Reconstruction) -> list[Panel]:
    """Before, after, the classical method's result where there is one, the difference, and the uncertainty."""
    from tomolens.core.reconstruction import is_invented

    columns = [
        Panel(f"before: {BEFORE[made.job]}", _grey(made.reference.voxels), warned=is_invented(made.reference.history)),
        Panel(f"after: {made.run.model}", _grey(made.volume.voxels), warned=made.generative),
    ]
    if made.baseline is not None:
        columns.append(Panel(f"baseline: {_method(made.baseline.history)}", _grey(made.baseline.voxels)))
    before, after, scale = made.reference.voxels, made.volume.voxels, difference_scale(made)
    columns.append(
        Panel(
            "after minus before",
            lambda plane, _: scale.coloured(_minus(plane.pixels(after), plane.pixels(before))),
            scale,
        )
    )
    sigma = made.uncertainty
    if sigma is not None:
        shown = uncertainty_scale(made, sigma)
        columns.append(Panel("uncertainty, 1 SD", lambda plane, _: shown.coloured(plane.pixels(sigma)), shown))
    return columns


def _grey(voxels: NDArray[Any]) -> Pixels:
    return lambda plane, window: windowed(plane.pixels(voxels), *window)


def _minus(after: NDArray[Any], before: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(after, np.float32) - np.asarray(before, np.float32)


def _method(history: tuple[str, ...]) -> str:
    """The name of the method that made the last step, e.g. ``tv 1`` of ``ct-denoising by tv 1``."""
    return history[-1].rpartition(" by ")[2] if history else ""


def views(made: Reconstruction) -> list[View]:
    """The axial, coronal and sagittal slice through the middle.

    A CT's axial and sagittal slice have a soft tissue window, in which noise shows, the coronal one has a lung window.
    """
    grid = made.volume.grid
    planes = [Plane(grid, axis, grid.shape[axis] // 2) for axis in standard_axes(grid)]
    if made.volume.modality != "CT":
        window = percentile_window(made.volume.voxels)
        return [View(plane, window, _caption(plane, made.placed), made.placed) for plane in planes]
    windows = (SOFT_TISSUE_WINDOW_HU, LUNG_WINDOW_HU, SOFT_TISSUE_WINDOW_HU)
    return [
        View(plane, window, f"{plane.caption}, window {window[0]:g}/{window[1]:g} HU")
        for plane, window in zip(planes, windows, strict=True)
    ]


def _caption(plane: Plane, placed: bool) -> str:
    """Which slice; where nobody knows the patient's sides it is no axial, coronal or sagittal one."""
    return plane.caption if placed else plane.caption.partition(", ")[2]


def difference_scale(made: Reconstruction) -> Scale:
    """A symmetric bar that holds all but the largest differences, in HU, or else in % of the range of the reference."""
    before, after = _sampled(made.reference.voxels), _sampled(made.volume.voxels)
    return _scale(made, np.abs(_minus(after, before)), DIFFERENCE_COLOURS, symmetric=True)


def uncertainty_scale(made: Reconstruction, sigma: NDArray[np.float32]) -> Scale:
    """A bar from 0 that holds all but the largest uncertainties, in the unit of the differences."""
    return _scale(made, _sampled(sigma), UNCERTAINTY_COLOURS, symmetric=False)


def difference_unit(made: Reconstruction) -> tuple[str, float]:
    """The unit in which differences are told, and what a number of the volume is multiplied by to be in it."""
    if made.volume.unit == "HU":
        return "HU", 1.0
    return "% of range", 100.0 / percentile_window(made.reference.voxels)[1]


def _scale(
    made: Reconstruction, sizes: NDArray[Any], colours: tuple[tuple[int, int, int], ...], *, symmetric: bool
) -> Scale:
    unit, factor = difference_unit(made)
    return Scale(_round_number(float(np.percentile(sizes, _PERCENT)) * factor), unit, factor, colours, symmetric)


def _sampled(voxels: NDArray[Any]) -> NDArray[Any]:
    return voxels[tuple(slice(None, None, max(1, n // _SAMPLED)) for n in voxels.shape)]


def _round_number(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below ``least``; 1 for 0."""
    if not least > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(step for step in _STEPS if step * power >= least * (1 - 1e-9)) * power


def told(made: Reconstruction) -> str:
    """What was done by what, as one line."""
    strength = made.run.options.get("strength", 1)
    share = f", strength {strength:g}" if strength != 1 else ""
    out = sum(not check.inside for check in made.checks)
    checked = f"{out} of {len(made.checks)} OUT OF RANGE" if out else f"{len(made.checks)} in range, none out"
    checks = f"  \N{MIDDLE DOT}  checks: {checked}" if made.checks else ""
    unknown = "  \N{MIDDLE DOT}  uncertainty not known" if made.uncertainty is None else ""
    return f"{made.job} by {made.run.model} {made.run.model_version}{share}{checks}{unknown}"


def reconstruction_html(made: Reconstruction) -> str:
    """Slices before and after with what was changed and how sure it is, the checks and the warnings."""
    from tomolens.core.finding import RESEARCH_USE

    columns, rows = panels(made), views(made)
    scale = _PICTURE_PX / max(view.plane.size_mm[1] for view in rows)
    titles = "".join(_title(panel) for panel in columns)
    pictures = "".join(_row(view, columns, scale) for view in rows)
    warnings = "".join(f'<li style="color:#b3261e"><b>{escape(warning)}</b></li>' for warning in made.warnings)
    return (
        f"<p><b>{escape(told(made))}</b></p>{f'<ul>{warnings}</ul>' if warnings else ''}"
        f"<table><tr>{titles}</tr>{pictures}</table>{_checks(made.checks)}<p><small>{RESEARCH_USE}</small></p>"
    )


def _title(panel: Panel) -> str:
    from tomolens.core.reconstruction import GENERATIVE

    bar = ""
    if panel.scale is not None:
        low, high = panel.scale.ends
        colours = ",".join(f"rgb{colour}" for colour in panel.scale.colours)
        strip = f"display:inline-block;width:80px;height:9px;background:linear-gradient(90deg,{colours})"
        bar = f'<br><small>{low} <span style="{strip}"></span> {escape(high)}</small>'
    warned = f'<br><small style="color:#b3261e">{GENERATIVE}</small>' if panel.warned else ""
    return f"<th>{escape(panel.title)}{warned}{bar}</th>"


def _row(view: View, columns: list[Panel], scale: float) -> str:
    """One slice in every column."""
    cells = [
        slice_svg(view.plane, panel.pixels(view.plane, view.window), px_per_mm=scale, letters=view.placed)
        for panel in columns
    ]
    drawn = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr>{drawn}</tr><tr><td colspan="{len(columns)}"><small>{escape(view.caption)}</small></td></tr>'


def _checks(checks: tuple[Check, ...]) -> str:
    rows = "".join(
        f"<tr><td>{escape(check.name)}</td><td>{escape(check.number)}</td>"
        f"<td>{escape(check.bounds)} {escape(check.unit)}</td><td>{_verdict(check)}</td></tr>"
        for check in checks
    )
    head = "<tr><th>check</th><th>value</th><th>in range</th><th></th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _verdict(check: Check) -> str:
    return check.verdict if check.inside else f'<b style="color:#b3261e">{check.verdict.upper()}</b>'
