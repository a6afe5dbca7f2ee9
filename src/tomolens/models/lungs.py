"""Where the lungs are: a coarse mask that is fast and errs on the side of keeping a nodule.

The mask is made at about 3 mm from block means. Air outside the body is what touches the image's side in a slice and is
as thin as room air; what remains and is large, textured and as dark as lung is lung. The result is closed over nodules
at the pleura, so that a finding's centre lies inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomolens.core.errors import ContractError
from tomolens.core.grid import Grid

if TYPE_CHECKING:
    from tomolens.core.volume import Volume

COARSE_MM = 3.0
AIR_BELOW_HU = -400.0
ROOM_AIR_BELOW_HU = -950.0
ROOM_AIR_SHARE = 0.3
"""Air at the side of a slice is outside the body when at least this share of it is as thin as room air (-1000 HU)."""
MIN_LUNG_ML = 60.0
MIN_TEXTURE_HU = 35.0
"""Standard deviation of block means: lungs with their vessels and gradient have 60-150, table foam about 10-20."""
MIN_LUNG_HU = -960.0
"""Mean of a part: emphysematous lungs stay above, room air and bowel gas do not."""
MIN_CORE_VOXELS = 4
"""In its slice, lung holds a square of 9 coarse voxels (about 27 mm); the gap between back and table does not."""
CLOSING_MM = 14.0
MARGIN_MM = 4.0
BOX_MARGIN_MM = 8.0
"""Around the mask, in the box that the network sees, in training and in use."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """A coarse lung mask on its own grid.

    ``mask`` is closed over the pleura and grown by `MARGIN_MM`: it holds every place where a nodule's centre may be.
    """

    mask: NDArray[np.bool_]
    grid: Grid

    def holds(self, lps_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each of (n, 3) LPS points lies in the mask; far outside the grid is False.

        The last few voxels of a scan may stand beyond the last whole block: they count as that block.
        """
        kji = np.round(self.grid.to_kji(lps_mm)).astype(int)
        nearest = np.clip(kji, 0, np.asarray(self.mask.shape) - 1)
        near = (np.abs(kji - nearest) <= 1).all(axis=1)
        return np.asarray(near & self.mask[tuple(nearest.T)])

    def box_kji(self, grid: Grid, margin_mm: float) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Start and shape, in voxels of ``grid`` (same axes), of the box around mask and margin, cut at the grid."""
        where = np.argwhere(self.mask)
        faces = np.stack([where.min(axis=0) - 0.5, where.max(axis=0) + 0.5])
        kji = grid.to_kji(self.grid.to_mm(faces))
        margin = margin_mm / np.asarray(grid.spacing_mm)
        low = np.clip(np.floor(kji.min(axis=0) - margin), 0, np.asarray(grid.shape) - 1).astype(int)
        high = np.clip(np.ceil(kji.max(axis=0) + margin) + 1, low + 1, grid.shape).astype(int)
        start, shape = low.tolist(), (high - low).tolist()
        return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def find_lungs(volume: Volume) -> Lungs:
    """Find the lungs of a CT in canonical order (superior, posterior, left).

    Raises
    ------
    ContractError
        If there is nothing in it that looks like lung.
    """
    means, grid = block_means(volume, COARSE_MM)
    air = means < AIR_BELOW_HU
    air &= ~_outside(air, means)
    lung = _lung_parts(air, means, float(np.prod(grid.spacing_mm)) / 1000)
    if not lung.any():
        raise ContractError(
            f"No lung was found in {volume.name}: nothing of at least {MIN_LUNG_ML:g} ml is as dark and as textured as "
            "lung. The model reads chest CT in HU."
        )
    return Lungs(_closed(lung, grid.spacing_mm), grid)


def block_means(volume: Volume, about_mm: float) -> tuple[NDArray[np.float32], Grid]:
    """Means of in-plane blocks of about ``about_mm``, of every n-th slice at that distance, and their grid."""
    step = [max(1, round(about_mm / spacing)) for spacing in volume.spacing_mm]
    shape = [max(1, n // s) for n, s in zip(volume.shape, step, strict=True)]
    step = [min(s, n) for s, n in zip(step, volume.shape, strict=True)]
    first = step[0] // 2
    slices = volume.voxels[first :: step[0]][: shape[0], : shape[1] * step[1], : shape[2] * step[2]]
    means = np.empty((len(slices), shape[1], shape[2]), np.float32)
    for mean, image in zip(means, slices, strict=True):
        mean[...] = _block_sums(image, step[1], step[2])
    means /= np.float32(step[1] * step[2])
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_mm((first, (step[1] - 1) / 2, (step[2] - 1) / 2))
    affine[:3, :3] = affine[:3, :3] * step
    return means, Grid((means.shape[0], shape[1], shape[2]), affine, volume.grid.frame_of_reference)


def _block_sums(image: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Sums over blocks of (rows, columns) of one slice; several times faster than a sum over the axes of the blocks."""
    exact = np.int32 if image.dtype.kind in "iu" else np.float32
    by_row = sum((image[row::rows] for row in range(1, rows)), image[::rows].astype(exact))
    return np.asarray(sum((by_row[:, column::columns] for column in range(1, columns)), by_row[:, ::columns]))


def _outside(air: NDArray[np.bool_], means: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Air that touches the side of its slice and is room air. Lung cut by the image's edge is not."""
    in_slice = np.zeros((3, 3, 3), bool)
    in_slice[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    labels, count = ndimage.label(air, in_slice)
    sides = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    touching = np.zeros(count + 1, bool)
    touching[np.concatenate([side.ravel() for side in sides])] = True
    size = np.bincount(labels.ravel(), minlength=count + 1)
    thin = np.bincount(labels[means < ROOM_AIR_BELOW_HU], minlength=count + 1)
    outside = touching & (thin >= ROOM_AIR_SHARE * size)
    outside[0] = False
    return np.asarray(outside[labels])


def _lung_parts(air: NDArray[np.bool_], means: NDArray[np.float32], voxel_ml: float) -> NDArray[np.bool_]:
    """The connected parts that are large enough and textured as lung."""
    labels, count = ndimage.label(air)
    index = np.arange(1, count + 1)
    volume_ml = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_ml
    large = index[volume_ml >= max(MIN_LUNG_ML, 0.03 * volume_ml.max(initial=0.0))]
    spread = np.atleast_1d(ndimage.standard_deviation(means, labels, large))
    mean = np.atleast_1d(ndimage.mean(means, labels, large))
    boxes = ndimage.find_objects(labels)
    thick = np.array([_inscribed(labels[boxes[n - 1]] == n) for n in large], bool)
    kept = np.zeros(count + 1, bool)
    kept[large[(spread >= MIN_TEXTURE_HU) & (mean > MIN_LUNG_HU) & thick]] = True
    return np.asarray(_without_table(kept, labels)[labels])


def _without_table(kept: NDArray[np.bool_], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Drop parts that reach from the right to the left side of the image where a larger part reaches neither.

    That is the foam of the table in a scan cropped around the body. Lungs that are cut by the image on both sides are
    larger than whatever else is taken for lung, and stay.
    """
    right, left = (np.isin(np.arange(len(kept)), labels[:, :, side]) for side in (0, -1))
    size = np.bincount(labels.ravel(), minlength=len(kept)) * kept
    return np.asarray(kept & ~(right & left & (size < size[~right & ~left].max(initial=0))))


def _inscribed(part: NDArray[np.bool_]) -> bool:
    """Whether some slice of it holds a square of the core's size; tells lung from the gap over a table."""
    edge = 2 * MIN_CORE_VOXELS + 1
    core = ndimage.minimum_filter(part.view(np.uint8), (1, edge, edge), mode="constant")
    return bool(core.any())


def _closed(lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Close over nodules, vessels and the pleura, then grow by the margin. Euclidean, in mm."""
    room = [int(np.ceil((CLOSING_MM + MARGIN_MM) / s)) for s in spacing_mm]
    box = ndimage.find_objects(lung.astype(np.uint8))[0]
    padded: NDArray[Any] = np.pad(lung[box], [(r, r) for r in room])
    grown = ndimage.distance_transform_edt(~padded, spacing_mm) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, spacing_mm) > CLOSING_MM - MARGIN_MM
    around = np.zeros([n + 2 * r for n, r in zip(lung.shape, room, strict=True)], bool)
    around[tuple(slice(b.start, b.stop + 2 * r) for b, r in zip(box, room, strict=True))] = closed
    return around[tuple(slice(r, r + n) for n, r in zip(lung.shape, room, strict=True))]
