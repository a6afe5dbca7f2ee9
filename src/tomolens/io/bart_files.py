"""K-space in BART's format: a text header (``.hdr``) and complex numbers (``.cfl``)."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from tomolens.core.errors import ReadError
from tomolens.core.grid import Grid
from tomolens.core.kspace import ASSUMED_MM, NO_PLACE, KSpace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_HEAD = "# Dimensions"
_READ, _PHASE_1, _PHASE_2, _COIL, _SLICE = 0, 1, 2, 3, 13
_NAMES = (
    "READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2",
    "ITER", "CSHIFT", "TIME", "TIME2", "LEVEL", "SLICE", "AVG", "BATCH",
)  # fmt: skip
"""BART's dimensions, the first the fastest (``src/misc/mri.h``)."""
_LONGEST_HEADER = 65_536


def is_bart(path: Path) -> bool:
    """Whether both files are there and the header is BART's; other formats have ``.hdr`` too."""
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    if not (header.is_file() and data.is_file()):
        return False
    with header.open("rb") as file:
        return file.read(len(_HEAD)) == _HEAD.encode()


def read_bart(path: Path) -> KSpace:
    """Read Cartesian slices: READ along kx, PHS1 along ky, COIL and SLICE; or PHS1 and PHS2 where READ is 1.

    BART states neither spacing nor place. What is zero in every coil was not measured.

    Raises
    ------
    ReadError
        If a file is missing, damaged or truncated, or has further dimensions, as a 3D measurement has.
    """
    shape = _shape(path.with_suffix(".hdr"))
    stored = _numbers(path.with_suffix(".cfl"), shape)
    others = [f"{_NAMES[d]} {shape[d]}" for d in range(16) if shape[d] > 1 and d not in (0, 1, 2, _COIL, _SLICE)]
    if others:
        raise ReadError(f"{path}: it has {', '.join(others)}; slices of one image and one map each are read.")
    if min(shape[_READ], shape[_PHASE_2]) > 1:
        raise ReadError(
            f"{path}: a 3D measurement ({shape[0]} x {shape[1]} x {shape[2]}); transform READ first "
            "(bart fft -i -u 1) and give one place of READ at a time."
        )
    rows, columns = (_PHASE_1, _READ) if shape[_PHASE_2] == 1 else (_PHASE_2, _PHASE_1)
    order = (_SLICE, _COIL, rows, columns)
    rest = tuple(d for d in range(16) if d not in order)
    data = np.ascontiguousarray(stored.transpose(*order, *rest).reshape([shape[d] for d in order]), np.complex64)
    acquired = np.asarray((data != 0).any(axis=1), np.bool_)
    if not acquired.any(axis=(1, 2)).all():
        raise ReadError(f"{path}: a slice holds nothing but zeros.")
    note = f"{NO_PLACE}: BART states neither that nor a spacing; {ASSUMED_MM}"
    note += f", rows are {_NAMES[rows]}, columns {_NAMES[columns]}"
    return KSpace(data, acquired, Grid.from_axes(acquired.shape), name=path.stem, history=(note,))


def _shape(header: Path) -> tuple[int, ...]:
    if not header.is_file():
        raise ReadError(f"{header}: BART's header is missing; .cfl and .hdr belong together.")
    with header.open("rb") as file:
        lines = file.read(_LONGEST_HEADER).decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or lines[0].strip() != _HEAD:
        raise ReadError(f"{header}: not BART's header; it begins with {_HEAD!r} and a line of sizes.")
    try:
        sizes = [int(word) for word in lines[1].split()]
    except ValueError as wrong:
        raise ReadError(f"{header}: sizes are whole numbers, not {lines[1][:80]!r}.") from wrong
    if not 1 <= len(sizes) <= len(_NAMES) or min(sizes) < 1:
        raise ReadError(f"{header}: 1 to 16 sizes of at least 1 are needed, not {lines[1][:80]!r}.")
    return (*sizes, *[1] * (len(_NAMES) - len(sizes)))


def _numbers(file: Path, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    if not file.is_file():
        raise ReadError(f"{file}: BART's data are missing; .cfl and .hdr belong together.")
    needed, there = 8 * prod(shape), file.stat().st_size
    if there != needed:
        raise ReadError(f"{file}: {there} bytes, but its header asks for {needed}: truncated, or another header.")
    return np.fromfile(file, "<c8").reshape(shape, order="F")
