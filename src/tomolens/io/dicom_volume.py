"""Read one DICOM series into a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from tomolens.core.errors import GeometryError, MissingSliceError, OptionError, ReadError, TomolensError
from tomolens.core.progress import Progress, silent
from tomolens.core.volume import Unit, Volume
from tomolens.io.dicom_header import read_slices
from tomolens.io.dicom_series import series_of
from tomolens.io.dicom_voxels import voxels_of
from tomolens.io.padding import with_padding_found
from tomolens.io.untilt import untilted

if TYPE_CHECKING:
    from pathlib import Path

    from tomolens.core.series import Problem, Series
    from tomolens.io.dicom_slice import Slice
    from tomolens.io.dicom_stack import Stack

Tilt = Literal["keep", "resample"]
Missing = Literal["refuse", "keep-largest"]
_ERRORS: dict[str, type[TomolensError]] = {
    "missing-slice": MissingSliceError,
    "unequal-spacing": GeometryError,
    "repeated-positions": GeometryError,
    "shifted-slices": GeometryError,
}
"""The error for each kind of problem; any other kind is a `ReadError`."""
_MOST_STEPS = 40
_GAPS = ("missing-slice", "unequal-spacing")


def read_series(
    series: Series, *, tilt: Tilt = "keep", missing: Missing = "refuse", progress: Progress = silent
) -> Volume:
    """Read one series into a volume.

    How a derived series was derived (DerivationDescription) opens the volume's history, one line a step.

    The numbers are Hounsfield units for CT and have no unit for anything else: int16 where every rescale slope and
    intercept is whole and the result fits, else float32. Slices lie in the order of their positions along +normal
    (row direction x column direction). The files are opened for reading only.

    Parameters
    ----------
    series
        As found by `find_series`.
    tilt
        What to do with a tilted gantry's sheared slices: ``keep`` the sheared grid, in which every voxel is where it
        was measured, or ``resample`` each slice within its plane onto a rectangular grid.
    missing
        What to do where slices are missing: ``refuse``, or ``keep-largest`` run of equally distant slices.
    progress
        Told ``Step("read slices", slices, all slices)``; may raise `Cancelled` to stop.

    Raises
    ------
    MissingSliceError
        If a slice is missing; the message names the gap.
    GeometryError
        If the slices cannot be one regular grid.
    ReadError
        If the series has a problem that is not of geometry, or a file is damaged or has changed since the scan.
    OptionError
        If ``tilt`` or ``missing`` is not one of the words above.
    """
    return read_stack(series, _stack_of(series), tilt=tilt, missing=missing, progress=progress)


def read_stack(
    series: Series, stack: Stack, *, tilt: Tilt = "keep", missing: Missing = "refuse", progress: Progress = silent
) -> Volume:
    """Read a stack whose headers are at hand; see `read_series`."""
    check_option("tilt", tilt, get_args(Tilt))
    check_option("missing", missing, get_args(Missing))
    _refuse(series, missing)
    derived = _derivation(stack)
    stack, history = _largest_run(stack)
    voxels = voxels_of(stack, progress)
    is_ct = series.modality == "CT"
    volume = Volume(
        voxels,
        stack.grid(),
        Unit.HU if is_ct else Unit.ARBITRARY,
        series.modality,
        series,
        _padding(stack),
        (*derived, *history),
    )
    return with_tilt(with_padding_found(volume), tilt)


def with_tilt(volume: Volume, tilt: Tilt) -> Volume:
    """The volume with its shear kept or resampled away."""
    return untilted(volume) if tilt == "resample" and volume.grid.is_sheared else volume


def check_option(name: str, value: str | None, accepted: tuple[str | None, ...]) -> None:
    """Refuse a word that is not among those accepted.

    Raises
    ------
    OptionError
        Naming the option, the value and what is accepted.
    """
    if value not in accepted:
        raise OptionError(f"{name} is one of {', '.join(filter(None, accepted))}, not {value!r}.")


def _refuse(series: Series, missing: Missing) -> None:
    for problem in series.problems:
        if problem.refused and not (missing == "keep-largest" and problem.kind in _GAPS):
            raise _error(series, problem)


def _error(series: Series, problem: Problem) -> TomolensError:
    hint = ' missing="keep-largest" reads the longest run of slices.' if problem.kind in _GAPS else ""
    return _ERRORS.get(problem.kind, ReadError)(f"{series.label}: {problem}{hint}")


def _stack_of(series: Series) -> Stack:
    """The series' own slices, from its files."""
    frames = series.frames or (0,) * len(series.files)
    chosen = {*zip(series.files, frames, strict=True), *series.copies}
    slices = [s for path in {path for path, _ in chosen} for s in _read_again(path) if (path, s.frame) in chosen]
    found = series_of(slices)
    if len(found) != 1 or (found[0][0].files, found[0][0].frames) != (series.files, frames):
        raise ReadError(f"{series.label}: its files have changed since the folder was scanned; scan it again.")
    return found[0][1]


def _read_again(path: Path) -> tuple[Slice, ...]:
    try:
        return read_slices(path)
    except ReadError as changed:
        raise ReadError(f"{path}: {changed}.") from changed


def _largest_run(stack: Stack) -> tuple[Stack, tuple[str, ...]]:
    if stack.is_regular:
        return stack, ()
    start, stop = stack.longest_run()
    kept = (
        f"slices {start + 1} to {stop} of {len(stack)}, {stack.heights[start]:.2f} to {stack.heights[stop - 1]:.2f} mm"
    )
    return stack.chosen(range(start, stop)), (f"kept the longest run of equally distant slices: {kept}",)


def _derivation(stack: Stack) -> tuple[str, ...]:
    """The steps that the slices' headers tell; where they tell several tales, each once."""
    told = dict.fromkeys(line.strip() for s in stack.slices for line in s.derivation.splitlines())
    steps = tuple(filter(None, told))
    more = len(steps) - _MOST_STEPS
    return steps if more <= 0 else (*steps[:_MOST_STEPS], f"(and {more} more lines of DerivationDescription)")


def _padding(stack: Stack) -> float | None:
    """The rescaled padding value, where all slices have the same."""
    values = {_rescaled_padding(s) for s in stack.slices}
    return values.pop() if len(values) == 1 else None


def _rescaled_padding(item: Slice) -> float | None:
    value = item.pixels.padding_value
    return None if value is None else item.rescale.slope * value + item.rescale.intercept
