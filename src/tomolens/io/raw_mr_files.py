"""K-space in HDF5: fastMRI's files, and what tells them from ISMRMRD's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import ReadError, TomolensError
from tomolens.core.grid import Grid
from tomolens.core.kspace import ASSUMED_MM, NO_PLACE, KSpace
from tomolens.io.ismrmrd_files import Encoding, read_ismrmrd, without_oversampling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ROWS = -2


def is_raw_mr(path: Path) -> bool:
    """Whether an HDF5 file holds k-space, by the names in it; without h5py any HDF5 file may."""
    with path.open("rb") as file:
        if file.read(len(_HDF5)) != _HDF5:
            return False
    try:
        with _opened(path) as content:
            return "kspace" in content or "dataset/data" in content
    except ReadError as problem:
        return isinstance(problem.__cause__, ImportError)


def read_raw_mr(path: Path) -> KSpace:
    """Read an ISMRMRD or a fastMRI file.

    Raises
    ------
    ReadError
        If h5py is not installed, or the file is damaged or neither of the two.
    """
    with _opened(path) as content:
        if "dataset/data" in content:
            return read_ismrmrd(content["dataset"], path)
        if "kspace" in content:
            return _fastmri(content, path)
        raise ReadError(
            f"{path}: an HDF5 file, but neither ISMRMRD (dataset/data) nor fastMRI (kspace); "
            f"it holds {', '.join(list(content)[:8]) or 'nothing'}."
        )


def _fastmri(content: Any, path: Path) -> KSpace:
    """Read (slice, coil, readout, phase), or (slice, readout, phase) of a single coil, with readout oversampling.

    The masks of test sets lie along the phase; without one, what is zero in every coil was not measured.
    Zbontar et al. 2018, arXiv:1811.08839.
    """
    stored = np.asarray(content["kspace"])
    if stored.ndim not in (3, 4) or stored.dtype.kind != "c" or 0 in stored.shape:
        raise ReadError(
            f"{path}: kspace is {stored.dtype} of shape {stored.shape}; complex (slice, coil, rows, columns) is needed."
        )
    data = np.asarray(stored if stored.ndim == 4 else stored[:, None], np.complex64)
    acquired = _acquired(content, data, path)
    history = [f"{NO_PLACE}: fastMRI does not state it; rows are the readout, columns the phase"]
    spacing = (1.0, 1.0, 1.0)
    if "ismrmrd_header" in content:
        encoding = Encoding.of(content["ismrmrd_header"][()], path)
        keep = min(data.shape[_ROWS], round(data.shape[_ROWS] * encoding.readout_share))
        data, acquired = without_oversampling(data, acquired, _ROWS, keep)
        readout_mm, phase_mm, thickness_mm = encoding.encoded_mm
        spacing = (thickness_mm, readout_mm / stored.shape[_ROWS], phase_mm / data.shape[-1])
        history.append("slice spacing is the slice thickness: fastMRI does not state gaps")
    else:
        history.append(f"no header: readout oversampling was kept; spacing is not known, {ASSUMED_MM}")
    return KSpace(data, acquired, Grid.from_axes(acquired.shape, spacing), name=path.stem, history=tuple(history))


def _acquired(content: Any, data: NDArray[np.complex64], path: Path) -> NDArray[np.bool_]:
    shape = (data.shape[0], *data.shape[2:])
    if "mask" not in content:
        return np.asarray((data != 0).any(axis=1), np.bool_)
    mask = np.asarray(content["mask"]).astype(bool)
    if mask.shape[-1:] != data.shape[-1:] or mask.ndim > 3:
        raise ReadError(f"{path}: a mask of shape {mask.shape} does not fit k-space of {data.shape}.")
    return np.ascontiguousarray(np.broadcast_to(mask, shape))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as missing:
        raise ReadError(f'{path}: HDF5 needs h5py; install it with: pip install "tomolens[kspace]"') from missing
    try:
        with h5py.File(path, "r") as content:
            yield content
    except TomolensError:
        raise
    except (OSError, LookupError, RuntimeError, TypeError, AttributeError, ValueError) as broken:
        raise ReadError(f"{path}: not a readable HDF5 file of k-space ({broken}).") from broken
