"""The pixels of a stack of DICOM slices as one array of numbers."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.progress import Progress, Step
from tomolens.io.dicom_pixels import read_frames
from tomolens.io.parallel import in_parallel
from tomolens.io.rescale import fits_int16, is_whole, rescale_into

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tomolens.io.dicom_slice import Slice
    from tomolens.io.dicom_stack import Stack

_FRAMES_A_JOB = 16
_Job = list[tuple[int, "Slice"]]
"""Slices of one file, each with its index in the stack."""


class _TooWide(Exception):
    """The numbers of a slice are no 16-bit integers."""


def voxels_of(stack: Stack, progress: Progress) -> NDArray[Any]:
    """Read every slice, rescaled, into (slices, rows, columns): int16 where that is exact for all, else float32.

    Raises
    ------
    ReadError
        If a file is damaged, or two files that claim to be one instance have different pixels.
    """
    whole = all(is_whole(s.rescale.slope, s.rescale.intercept) for s in stack.slices)
    try:
        voxels = _filled(stack, np.dtype(np.int16 if whole else np.float32), progress)
    except _TooWide:
        voxels = _filled(stack, np.dtype(np.float32), progress)
    _compare_copies(stack, voxels)
    return voxels


def _filled(stack: Stack, dtype: np.dtype[Any], progress: Progress) -> NDArray[Any]:
    pixels = stack.slices[0].pixels
    voxels = np.empty((len(stack), pixels.rows, pixels.columns), dtype)
    done = 0
    progress(Step("read slices", 0, len(stack)))
    with in_parallel(lambda job: _fill(voxels, job), _jobs(stack)) as results:
        for count in results:
            done += count
            progress(Step("read slices", done, len(stack)))
    return voxels


def _jobs(stack: Stack) -> Iterator[_Job]:
    for _, group in groupby(enumerate(stack.slices), key=lambda pair: pair[1].path):
        members = list(group)
        yield from (members[start : start + _FRAMES_A_JOB] for start in range(0, len(members), _FRAMES_A_JOB))


def _fill(voxels: NDArray[Any], job: _Job) -> int:
    first = job[0][1]
    frames = read_frames(first.path, first.pixels, [item.frame for _, item in job])
    for (k, item), stored in zip(job, frames, strict=True):
        _place(voxels[k], stored, item)
    return len(job)


def _place(out: NDArray[Any], stored: NDArray[Any], item: Slice) -> None:
    slope, intercept = item.rescale.slope, item.rescale.intercept
    possible = np.array(item.pixels.value_range)
    if (
        out.dtype == np.int16
        and not fits_int16(possible, slope, intercept)
        and not fits_int16(stored, slope, intercept)
    ):
        raise _TooWide
    rescale_into(out, stored, slope, intercept)


def _compare_copies(stack: Stack, voxels: NDArray[Any]) -> None:
    for copy, k in stack.copies:
        if not _same_numbers(copy, voxels[k]):
            raise ReadError(
                f"{stack.slices[k].path} and {copy.path} claim to be one instance ({copy.instance_uid}) but differ in"
                " their pixels; keep the one that is wanted."
            )


def _same_numbers(item: Slice, numbers: NDArray[Any]) -> bool:
    again = np.empty_like(numbers)
    try:
        _fill(again[None], [(0, item)])
    except _TooWide:
        return False
    return np.array_equal(again, numbers)
