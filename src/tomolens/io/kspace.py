"""K-space from files: ISMRMRD, fastMRI, BART, and NumPy archives, which are also written.

A NumPy archive (``.npz``) holds ``kspace``, complex, (slice, coil, ky, kx), zero frequency in the middle, the centred
orthonormal Fourier transform of the coils' images. It may hold ``acquired``, bool, (slice, ky, kx) or (ky, kx): without
it whatever is not zero in every coil was measured; ``sensitivities``, complex, of the shape of ``kspace``; ``affine``,
(4, 4), taking (k, j, i, 1) to LPS mm, or ``spacing_mm``, three numbers for slices, rows and columns; ``name``,
``history`` and ``frame_of_reference``, text. With ``kspace_step`` the numbers are pairs of integers (real, imaginary)
in multiples of it, (coil, slice, ky, kx, 2), as in the sample volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import GeometryError, OutputError, ReadError, TomolensError
from tomolens.core.grid import Grid
from tomolens.core.kspace import ASSUMED_MM, NO_PLACE, KSpace
from tomolens.io.atomic import whole_file
from tomolens.io.bart_files import is_bart, read_bart
from tomolens.io.raw_mr_files import is_raw_mr, read_raw_mr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NPZ = ".npz"
_NO_PLACE = f"{NO_PLACE}: rows and columns are the scanner's axes, not the patient's sides"


def read_kspace(path: Path | str) -> KSpace:
    """Read one measurement.

    Parameters
    ----------
    path
        ISMRMRD or fastMRI (``.h5``), BART (``.cfl`` beside its ``.hdr``), or a NumPy archive (``.npz``).

    Returns
    -------
    KSpace
        What could not be read from the file, such as its place in the patient, stands in its history. Zero wherever the
        file says that nothing was measured, even where it holds numbers there.

    Raises
    ------
    ReadError
        If the file is none of these, is damaged, or holds something that is no stack of Cartesian slices.
    GeometryError
        If slices are not one regular grid.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"{path}: there is no such file.")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ReadError(f"{path}: not k-space; accepted are {', '.join(KSPACE_SUFFIXES)}.")
    kspace = _read(path, read)
    if not np.isfinite(kspace.data).all():
        raise ReadError(f"{path}: {np.count_nonzero(~np.isfinite(kspace.data))} numbers of k-space are not finite.")
    data = np.where(kspace.acquired[:, None], kspace.data, np.complex64(0))
    return replace(kspace, data=data, name=kspace.name if kspace.name != "k-space" else path.stem)


def _read(path: Path, read: Callable[[Path], KSpace]) -> KSpace:
    try:
        return read(path)
    except TomolensError:
        raise
    except OSError as refused:
        raise ReadError(f"{path} cannot be read ({refused.strerror}).") from refused


def is_kspace(path: Path | str) -> bool:
    """Whether a file holds k-space that can be read, by its suffix and its first bytes or names of contents."""
    path = Path(path)
    known = _KNOWN.get(path.suffix.lower())
    try:
        return known is not None and path.is_file() and known(path)
    except OSError:  # reading it tells why it cannot be
        return False


def write_kspace(kspace: KSpace, path: Path | str) -> Path:
    """Write a NumPy archive that `read_kspace` reads back exactly.

    Raises
    ------
    OutputError
        If the name does not end in ``.npz``, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != NPZ:
        raise OutputError(f"{path}: k-space is written as {NPZ}.")
    content: dict[str, Any] = {
        "kspace": kspace.data,
        "acquired": kspace.acquired,
        "affine": kspace.grid.affine,
        "name": kspace.name,
        "history": np.array(kspace.history, dtype=str),
        "frame_of_reference": kspace.grid.frame_of_reference or "",
    }
    if kspace.sensitivities is not None:
        content["sensitivities"] = kspace.sensitivities
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **content)
    except OSError as problem:
        raise OutputError(f"{path} cannot be written: {problem}.") from problem
    return path


def _read_npz(path: Path) -> KSpace:
    content = _contents(path)
    if "kspace" not in content:
        raise ReadError(f"{path}: an archive without 'kspace'; it holds {', '.join(content) or 'nothing'}.")
    sensitivities = content.get("sensitivities")
    try:
        data = _data(content, path)
        shape = (data.shape[0], data.shape[2], data.shape[3])
        grid, notes = _grid(content, shape)
        return KSpace(
            data,
            _acquired(content, data),
            grid,
            None if sensitivities is None else np.asarray(sensitivities, np.complex64),
            str(content.get("name", path.stem)),
            (*(str(line) for line in np.atleast_1d(content.get("history", ()))), *notes),
        )
    except (GeometryError, ValueError, TypeError) as wrong:
        raise ReadError(f"{path}: {wrong}") from wrong


def _contents(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as broken:  # zip, zlib and NumPy each meet broken bytes in their own way
        raise ReadError(f"{path}: not a readable NumPy archive of numbers ({broken}).") from broken


def _data(content: Mapping[str, NDArray[Any]], path: Path) -> NDArray[np.complex64]:
    stored = content["kspace"]
    if "kspace_step" in content and stored.ndim == 5 and stored.shape[-1] == 2:
        pairs = stored.astype(np.float32) * np.float32(content["kspace_step"])
        stored = (pairs[..., 0] + 1j * pairs[..., 1]).swapaxes(0, 1)
    if stored.ndim != 4 or stored.dtype.kind != "c" or 0 in stored.shape:
        raise ReadError(
            f"{path}: kspace is {stored.dtype} of shape {stored.shape}; complex (slice, coil, ky, kx) is needed."
        )
    return np.ascontiguousarray(stored, np.complex64)


def _acquired(content: Mapping[str, NDArray[Any]], data: NDArray[np.complex64]) -> NDArray[np.bool_]:
    shape = (data.shape[0], *data.shape[2:])
    if "acquired" not in content:
        return np.asarray((data != 0).any(axis=1), np.bool_)
    given = content["acquired"]
    if given.shape not in (shape, shape[1:]):
        raise ValueError(f"acquired is of shape {given.shape}; {shape} or {shape[1:]} is needed.")
    return np.ascontiguousarray(np.broadcast_to(given.astype(bool), shape))


def _grid(content: Mapping[str, NDArray[Any]], shape: tuple[int, int, int]) -> tuple[Grid, tuple[str, ...]]:
    """Where the image lies, and what is not known of that."""
    frame = str(content.get("frame_of_reference", "")) or None
    if "affine" in content:
        return Grid(shape, content["affine"], frame), ()
    if "spacing_mm" in content:
        k, j, i = (float(step) for step in content["spacing_mm"])
        if not all(np.isfinite(step) and step > 0 for step in (k, j, i)):
            raise ValueError(f"spacing_mm is {k:g}, {j:g}, {i:g}; three distances above 0 are needed.")
        return Grid.from_axes(shape, (k, j, i), frame_of_reference=frame), (_NO_PLACE,)
    return Grid.from_axes(shape, frame_of_reference=frame), (f"{_NO_PLACE}; its spacing is not known, {ASSUMED_MM}",)


def _is_npz(path: Path) -> bool:
    """By the names in the archive; nothing is unpacked."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return "kspace" in archive.files
    except Exception:  # whatever is broken is no k-space
        return False


_READERS: Mapping[str, Callable[[Path], KSpace]] = {
    ".h5": read_raw_mr, ".hdf5": read_raw_mr, ".cfl": read_bart, ".hdr": read_bart, NPZ: _read_npz,
}  # fmt: skip
_KNOWN: Mapping[str, Callable[[Path], bool]] = {
    ".h5": is_raw_mr, ".hdf5": is_raw_mr, ".cfl": is_bart, ".hdr": is_bart, NPZ: _is_npz,
}  # fmt: skip
KSPACE_SUFFIXES = tuple(_READERS)
