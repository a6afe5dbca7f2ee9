"""K-space in ISMRMRD's format (Inati et al., Magn Reson Med 2017; 77:411-421): acquisitions sorted into slices.

``read_dir``, ``phase_dir`` and ``slice_dir`` are direction cosines and ``position`` the centre of the excited slice, in
LPS mm. Columns run along ``read_dir``, rows along ``phase_dir``; the middle pixel (n // 2), whose phase no gradient
turns, lies at ``position``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from tomolens.core.errors import GeometryError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.kspace import FIRST_OF, NO_PLACE, KSpace
from tomolens.physics.fourier import to_images, to_kspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_NO_IMAGE = (19, 20, 23, 24, 26, 27, 28, 29, 30, 31)
"""Flags, counted from 1, of what belongs to no image: noise, calibration alone, navigator, phase correction, feedback,
dummy scan, surface coil correction, phase stabilisation (``ismrmrd.h``)."""
_REVERSED = 22
_LARGEST_MATRIX = 8192
"""Along each axis; a damaged header would ask for all memory."""
_FIRST_ONLY = ("contrast", "phase", "repetition", "set")
_COSINE, _APART_MM = 1e-3, 0.1


@dataclass(frozen=True)
class Encoding:
    """What a header says of the first encoding; each triple is readout, phase, slice.

    Parameters
    ----------
    matrix
        Places of k-space.
    encoded_mm, recon_mm
        Field of view.
    centre
        The phase line of zero frequency.
    frame_of_reference
        UID of the patient system that positions are in; None where the header has none.
    """

    matrix: tuple[int, int, int]
    encoded_mm: tuple[float, float, float]
    recon_mm: tuple[float, float, float]
    centre: int
    frame_of_reference: str | None = None

    @classmethod
    def of(cls, header: bytes | str, path: Path) -> Encoding:
        """Read ISMRMRD's XML, which fastMRI's files carry too.

        Raises
        ------
        ReadError
            If it is no XML, says too little, or its trajectory is not Cartesian.
        """
        try:
            root = ElementTree.fromstring(header)
            space = "{*}encoding/{*}encodedSpace/"
            matrix = _triple(root, space + "{*}matrixSize/{*}")
            encoded = _triple(root, space + "{*}fieldOfView_mm/{*}")
            recon = _triple(root, "{*}encoding/{*}reconSpace/{*}fieldOfView_mm/{*}")
            centre = root.findtext("{*}encoding/{*}encodingLimits/{*}kspace_encoding_step_1/{*}center")
            frame = root.findtext("{*}measurementInformation/{*}frameOfReferenceUID")
            trajectory = root.findtext("{*}encoding/{*}trajectory") or "cartesian"
        except (ElementTree.ParseError, TypeError, ValueError) as wrong:
            raise ReadError(f"{path}: its ISMRMRD header cannot be understood ({wrong}).") from wrong
        if trajectory != "cartesian":
            raise ReadError(f"{path}: its trajectory is {trajectory}; cartesian is accepted.")
        if not np.isfinite([*matrix, *encoded, *recon]).all() or min(*matrix, *encoded, *recon) <= 0:
            raise ReadError(f"{path}: its header gives a matrix of {matrix} over {encoded} mm.")
        if max(matrix) > _LARGEST_MATRIX:
            raise ReadError(f"{path}: its header gives a matrix of {matrix}; up to {_LARGEST_MATRIX} a side are read.")
        sizes = (round(matrix[0]), round(matrix[1]), round(matrix[2]))
        middle = sizes[1] // 2 if centre is None else int(centre)
        return cls(sizes, encoded, recon, middle, (frame or "").strip() or None)

    @property
    def readout_share(self) -> float:
        """How much of the encoded readout is image; scanners measure twice as much and cut it away."""
        return min(self.recon_mm[0] / self.encoded_mm[0], 1.0)


def _triple(root: ElementTree.Element, place: str) -> tuple[float, float, float]:
    x, y, z = (float(root.findtext(place + axis) or "nan") for axis in "xyz")
    return x, y, z


def read_ismrmrd(content: Any, path: Path) -> KSpace:
    """Read a group ``dataset`` of acquisitions: Cartesian slices, each a stack of readouts.

    Readout oversampling is removed, phase oversampling kept. Averages are averaged; of several contrasts, phases,
    repetitions or sets the first is read, which the history says.

    Raises
    ------
    ReadError
        If the header or the acquisitions are not those of Cartesian slices.
    GeometryError
        If the slices are not one regular grid.
    """
    if "xml" not in content:
        raise ReadError(f"{path}: ISMRMRD without its header (dataset/xml).")
    encoding = Encoding.of(content["xml"][0], path)
    heads, samples = content["data"]["head"], content["data"]["data"]
    chosen, notes = _imaging(heads, path)
    heads, samples = heads[chosen], samples[chosen]
    if encoding.matrix[2] > 1 or heads["idx"]["kspace_encode_step_2"].any():
        raise ReadError(
            f"{path}: a 3D measurement ({encoding.matrix[2]} partitions); stacks of slices are read. Transform it "
            "along the partitions first."
        )
    numbers, first = np.unique(heads["idx"]["slice"], return_index=True)
    grid_heads, order, placed = _ordered(heads[first], path)
    data, acquired = _sorted(heads, samples, {int(numbers[k]): at for at, k in enumerate(order)}, encoding, path)
    keep = round(encoding.matrix[0] * encoding.readout_share)
    data, acquired = without_oversampling(data, acquired, -1, keep)
    grid = _grid(grid_heads, encoding, acquired.shape) if placed else _unplaced(encoding, acquired.shape)
    place = () if placed else (f"the file states no directions: {NO_PLACE}",)
    return KSpace(data, acquired, grid, name=path.stem, history=(*notes, *place))


def without_oversampling(
    data: NDArray[np.complex64], acquired: NDArray[np.bool_], axis: int, keep: int
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """K-space of the middle ``keep`` pixels of the images along an axis, -1 or -2; the middle stays the middle.

    Where only a part of the readout was measured, as in a partial echo, the same part counts as measured afterwards.
    """
    length = data.shape[axis]
    if keep == length:
        return data, acquired
    start = length // 2 - keep // 2
    span = slice(start, start + keep)
    images = to_images(data)[(..., span) if axis == -1 else (..., span, slice(None))]
    nearest = (np.arange(keep) - keep // 2) * length // keep + length // 2
    kept = np.take(acquired, nearest, axis)
    return np.where(kept[:, None], to_kspace(images), np.complex64(0)), kept


def _imaging(heads: NDArray[Any], path: Path) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Which acquisitions belong to the image that is read, and what was left out."""
    flags = heads["flags"].astype(np.uint64)
    belongs = ~np.any([(flags >> np.uint64(flag - 1)) & np.uint64(1) for flag in _NO_IMAGE], axis=0)
    belongs &= heads["encoding_space_ref"] == 0
    notes = []
    for name in _FIRST_ONLY:
        values = np.unique(heads["idx"][name][belongs])
        if len(values) > 1:
            notes.append(f"{FIRST_OF} {len(values)} {name}s was read")
            belongs &= heads["idx"][name] == values[0]
    if not belongs.any():
        raise ReadError(f"{path}: none of its {len(heads)} acquisitions belongs to an image.")
    if not np.array_equal(np.unique(heads["active_channels"][belongs]), heads["active_channels"][belongs][:1]):
        raise ReadError(f"{path}: its acquisitions have different numbers of coils.")
    return np.flatnonzero(belongs), tuple(notes)


def _sorted(
    heads: NDArray[Any], samples: NDArray[Any], places: Mapping[int, int], encoding: Encoding, path: Path
) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """(slice, coil, ky, kx) with the mean of what was measured at each place, and where that is."""
    columns, rows, _ = encoding.matrix
    coils = int(heads["active_channels"][0])
    data = np.zeros((len(places), coils, rows, columns), np.complex64)
    times = np.zeros((len(places), rows, columns), np.int32)
    for head, stored in zip(heads, samples, strict=True):
        readout = _readout(head, stored, coils, path)
        first = columns // 2 - (int(head["center_sample"]) - int(head["discard_pre"]))
        row = int(head["idx"]["kspace_encode_step_1"]) - encoding.centre + rows // 2
        if first < 0 or first + readout.shape[1] > columns or not 0 <= row < rows:
            raise ReadError(
                f"{path}: a readout of {readout.shape[1]} samples on line {row} lies outside the encoded matrix of "
                f"{rows} x {columns}."
            )
        at = places[int(head["idx"]["slice"])]
        data[at, :, row, first : first + readout.shape[1]] += readout
        times[at, row, first : first + readout.shape[1]] += 1
    data /= np.maximum(times, 1)[:, None].astype(np.float32)
    return data, times > 0


def _readout(head: Any, stored: NDArray[Any], coils: int, path: Path) -> NDArray[np.complex64]:
    """(coil, sample) of one acquisition, in the direction of ``read_dir``, without what is to be discarded."""
    count = int(head["number_of_samples"])
    if np.size(stored) != 2 * coils * count or not count:
        needed = 2 * coils * count
        raise ReadError(f"{path}: an acquisition holds {np.size(stored)} numbers where its head asks for {needed}.")
    readout = np.asarray(stored, np.float32).view(np.complex64).reshape(coils, count)
    before, after = int(head["discard_pre"]), int(head["discard_post"])
    if before + after >= count:
        raise ReadError(f"{path}: of an acquisition's {count} samples {before} + {after} are to be discarded.")
    readout = readout[:, before : count - after]
    if int(head["flags"]) >> (_REVERSED - 1) & 1:
        raise ReadError(f"{path}: it has reversed readouts, as of echo-planar imaging, which are not read.")
    return readout


def _ordered(heads: NDArray[Any], path: Path) -> tuple[NDArray[Any], NDArray[np.intp], bool]:
    """One head a slice in the order of their places along ``slice_dir``, that order, and whether places are known."""
    axes = np.stack([heads["read_dir"], heads["phase_dir"], heads["slice_dir"]], axis=1).astype(float)
    lengths = np.linalg.norm(axes, axis=2)
    if not (np.abs(lengths - 1) < _COSINE).all():
        return heads, np.arange(len(heads)), False
    if np.abs(axes - axes[0]).max() > _COSINE or np.abs(axes[0] @ axes[0].T - np.eye(3)).max() > _COSINE:
        raise GeometryError(f"{path}: its slices point in different directions, or their axes are not at right angles.")
    order = np.argsort(heads["position"].astype(float) @ axes[0, 2], kind="stable")
    return heads[order], order, True


def _grid(heads: NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Grid:
    """Rows along ``phase_dir``, columns along ``read_dir``, slices from position to position."""
    positions = heads["position"].astype(float)
    steps = np.diff(positions, axis=0)
    if len(steps) and np.abs(steps - steps.mean(axis=0)).max() > _APART_MM:
        raise GeometryError(f"The slices lie {np.linalg.norm(steps, axis=1).round(2).tolist()} mm apart, not evenly.")
    thickness_mm, row_mm, column_mm = _spacing(encoding)
    affine = np.eye(4)
    affine[:3, 0] = steps.mean(axis=0) if len(steps) else heads["slice_dir"][0].astype(float) * thickness_mm
    affine[:3, 1] = heads["phase_dir"][0].astype(float) * row_mm
    affine[:3, 2] = heads["read_dir"][0].astype(float) * column_mm
    affine[:3, 3] = positions[0] - affine[:3, 1] * (shape[1] // 2) - affine[:3, 2] * (shape[2] // 2)
    return Grid((shape[0], shape[1], shape[2]), affine, encoding.frame_of_reference)


def _unplaced(encoding: Encoding, shape: tuple[int, ...]) -> Grid:
    return Grid.from_axes((shape[0], shape[1], shape[2]), _spacing(encoding))


def _spacing(encoding: Encoding) -> tuple[float, float, float]:
    """Thickness of a slice, and pixel spacing of rows and columns."""
    readout_mm, phase_mm, thickness_mm = encoding.encoded_mm
    return thickness_mm, phase_mm / encoding.matrix[1], readout_mm / encoding.matrix[0]
