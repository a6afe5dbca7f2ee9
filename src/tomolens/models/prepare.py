"""A volume as an imported network wants it: the bundle's own steps, each keeping track of where the voxels lie.

A step is plain data, ``{"do": NAME, ...}``; `STEPS` says what there is. The array begins in the order (i, j, k) of the
acquisition, as MONAI's readers give it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import monai.transforms
import numpy as np
import torch
from torch.nn import functional

from tomolens.core.errors import ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit
from tomolens.models.inference import is_memory
from tomolens.models.resampling import resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume

AIR_HU = -1024.0
INTENSITY = (
    "ScaleIntensityRange",
    "NormalizeIntensity",
    "ScaleIntensity",
    "ScaleIntensityRangePercentiles",
    "ClipIntensityPercentiles",
    "ShiftIntensity",
    "ThresholdIntensity",
)
"""MONAI transforms that change numbers and move nothing."""
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True, eq=False)
class Placed:
    """(channels, a, b, c) float32 and the grid of (a, b, c); ``fill`` stands where nothing was measured.

    ``cropped_to`` are the boxes that steps cut it down to; a face where nothing was cut off lies beyond the scan.
    """

    channels: torch.Tensor
    grid: Grid
    fill: float
    cropped_to: tuple[Grid, ...] = ()


def images_for(card: ModelCard, volume: Volume | Sequence[Volume]) -> tuple[Volume, ...]:
    """One volume for each image that the model reads.

    Raises
    ------
    ContractError
        If the number is another, one does not fit the model, or they do not lie on one grid.
    """
    volumes = tuple(volume) if isinstance(volume, Sequence) else (volume,)
    wanted = card.input.channels
    if len(volumes) != len(wanted):
        raise ContractError(
            f"{card.name} reads {len(wanted)} images of one patient on one grid, in this order: {', '.join(wanted)}; "
            f"{len(volumes)} were given."
        )
    for image in volumes:
        card.input.check(image)
        if not image.grid.same_place(volumes[0].grid):
            raise ContractError(
                f"{image.name} and {volumes[0].name} do not lie on one grid; {card.name} reads them voxel by voxel. "
                "Register and resample them first."
            )
    return volumes


def prepared(volumes: Sequence[Volume], steps: Sequence[Mapping[str, Any]]) -> Placed:
    """Do the steps in their order.

    Raises
    ------
    ModelError
        If a step is not known or cannot be done as it says.
    """
    image = _placed(volumes)
    for step in steps:
        arguments = {name: value for name, value in step.items() if name != "do"}
        try:
            image = STEPS[step["do"]](image, **arguments)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as wrong:
            if isinstance(wrong, ModelError) or is_memory(wrong):
                raise
            raise ModelError(f"The step {dict(step)} cannot be done: {wrong}.") from wrong
    return image


def _placed(volumes: Sequence[Volume]) -> Placed:
    first = volumes[0]
    fill = AIR_HU if first.unit == Unit.HU else float(min(volume.voxels.min() for volume in volumes))
    channels = torch.from_numpy(np.stack([volume.voxels.transpose(2, 1, 0).astype(np.float32) for volume in volumes]))
    grid = first.grid.permuted((2, 1, 0))
    image = Placed(channels, grid, fill)
    return _onto(image, _straightened(grid)) if grid.is_sheared else image


def _straightened(grid: Grid) -> Grid:
    """A grid along the patient's own axes over all that a sheared one covers, in its order of axes and spacing."""
    order, _ = grid.canonical_order
    straight = grid.permuted(order)
    places = straight.to_mm(np.array(np.meshgrid(*[(0, n - 1) for n in straight.shape])).reshape(3, -1).T)
    low, high = places.min(axis=0), places.max(axis=0)
    k, j, i = (int(np.ceil(e / s)) + 1 for e, s in zip((high - low)[::-1], straight.spacing_mm, strict=True))
    along = Grid.from_axes((k, j, i), straight.spacing_mm, low, frame_of_reference=grid.frame_of_reference)
    back = np.argsort(order)
    return along.permuted((int(back[0]), int(back[1]), int(back[2])))


def _onto(image: Placed, grid: Grid, nearest: bool = False) -> Placed:
    return replace(
        image, channels=resampled(image.channels, image.grid, grid, nearest=nearest, fill=image.fill), grid=grid
    )


def _orient(image: Placed, axcodes: str) -> Placed:
    """Turn the axes to grow towards the patient's sides that the letters name; nothing is resampled."""
    letters = image.grid.axis_letters
    order = [next(a for a, letter in enumerate(letters) if letter in (code, _OPPOSITE[code])) for code in axcodes]
    grid = image.grid.permuted((order[0], order[1], order[2]))
    flipped = [axis for axis, code in enumerate(axcodes) if letters[order[axis]] != code]
    for axis in flipped:
        grid = grid.flipped(axis)
    channels = image.channels.permute(0, *[axis + 1 for axis in order]).flip([axis + 1 for axis in flipped])
    return replace(image, channels=channels.contiguous(), grid=grid)


def _space(image: Placed, pixdim: Sequence[float], mode: str = "bilinear") -> Placed:
    """Resample to a spacing in mm along each axis; 0 or less keeps an axis as it is."""
    wished = [wish if wish > 0 else old for wish, old in zip(pixdim, image.grid.spacing_mm, strict=True)]
    return _onto(image, image.grid.respaced((wished[0], wished[1], wished[2])), mode == "nearest")


def _intensity(image: Placed, transform: str, arguments: Mapping[str, Any]) -> Placed:
    """Change the numbers as MONAI's transform of that name does."""
    if transform not in INTENSITY:
        raise ModelError(f"There is no intensity step {transform!r}; known are {', '.join(INTENSITY)}.")
    return replace(image, channels=getattr(monai.transforms, transform)(**arguments)(image.channels))


def _crop_foreground(image: Placed, margin: int | Sequence[int] = 0, allow_smaller: bool = True) -> Placed:
    """Crop to the box around what is above 0 in any channel, with a margin in voxels.

    Where the margin leads out of the image it ends there (``allow_smaller``), or is padded with 0.
    """
    where = (image.channels > 0).any(dim=0).nonzero()
    if not len(where):
        return image
    around = np.broadcast_to(margin, 3)
    shape = np.asarray(image.grid.shape)
    low, high = where.amin(dim=0).numpy() - around, where.amax(dim=0).numpy() + around + 1
    inner = np.maximum(low, 0), np.minimum(high, shape)
    low, high = inner if allow_smaller else (low, high)
    channels = image.channels[(slice(None), *(slice(int(a), int(b)) for a, b in zip(*inner, strict=True)))]
    before, after = (inner[0] - low).tolist(), (high - inner[1]).tolist()
    room = [side for axis in (2, 1, 0) for side in (before[axis], after[axis])]
    grid = image.grid.cropped(_three(tuple(low.tolist())), _three(tuple((high - low).tolist())))
    boxes = (*image.cropped_to, _box_of(image.grid, low, high))
    return replace(image, channels=functional.pad(channels, room), grid=grid, cropped_to=boxes)


def _box_of(grid: Grid, low: NDArray[np.int_], high: NDArray[np.int_]) -> Grid:
    """The voxels from ``low`` to ``high``; at the grid's own faces one more, for what its spacing left of the scan."""
    low, high = low - (low <= 0), high + (high >= grid.shape)
    return grid.cropped(_three(tuple(low.tolist())), _three(tuple((high - low).tolist())))


def _pad_divisible(image: Placed, k: int | Sequence[int]) -> Placed:
    """Pad with 0 on both sides until each size is a multiple of ``k``."""
    lacks = [-n % int(d) for n, d in zip(image.grid.shape, np.broadcast_to(k, 3), strict=True)]
    room = [side for lack in reversed(lacks) for side in (lack // 2, lack - lack // 2)]
    size = tuple(n + lack for n, lack in zip(image.grid.shape, lacks, strict=True))
    start = (-(lacks[0] // 2), -(lacks[1] // 2), -(lacks[2] // 2))
    return replace(image, channels=functional.pad(image.channels, room), grid=image.grid.cropped(start, _three(size)))


def _resize(image: Placed, spatial_size: Sequence[int], mode: str = "area") -> Placed:
    """Resample to a number of voxels over the same field of view, as MONAI's ``Resize``; of 2 sizes slice by slice."""
    sizes = [wish if wish > 0 else old for wish, old in zip((*spatial_size, -1), image.grid.shape, strict=False)]
    kind = "trilinear" if mode in ("bilinear", "linear") else mode
    corners = None if kind in ("area", "nearest", "nearest-exact") else False
    channels = functional.interpolate(image.channels[None], sizes, mode=kind, align_corners=corners)[0]
    grid = image.grid
    ratio = np.asarray(grid.shape) / sizes
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_mm((ratio - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * ratio
    return replace(image, channels=channels, grid=Grid(_three(tuple(sizes)), affine, grid.frame_of_reference))


def _three(size: tuple[int, ...]) -> tuple[int, int, int]:
    return size[0], size[1], size[2]


STEPS: Mapping[str, Callable[..., Placed]] = {
    "orient": _orient,
    "space": _space,
    "intensity": _intensity,
    "crop_foreground": _crop_foreground,
    "pad_divisible": _pad_divisible,
    "resize": _resize,
}
