"""What a segmentation model drew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import SegmentationError
from tomolens.core.label_picture import segmentation_html

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.run import Run
    from tomolens.core.volume import Volume

LABEL_KINDS = (np.dtype(np.uint8), np.dtype(np.uint16))
"""Kinds of number that labels are held in."""


@dataclass(frozen=True)
class Structure:
    """One row of a segmentation's table: a label, what it stands for, and how much of it there is.

    ``volume_ml`` is the number of voxels times the volume of one, in millilitres (cm3).
    """

    label: int
    name: str
    voxels: int
    volume_ml: float


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model segmented in one volume: for each voxel the structure that it belongs to.

    Parameters
    ----------
    labels
        (slices k, rows j, columns i), uint8 or uint16. 0 is none of the structures. Held read-only; not copied.
    names
        The model's channel table: what each label stands for, also those that were not found. Labels count from 1.
    grid
        The grid of the volume that was read; its shape is that of ``labels``.
    run
        How the result was made.
    volume
        The volume itself, where it is at hand, for pictures; never written with the labels.

    Raises
    ------
    SegmentationError
        If the labels are of another kind or shape, hold a number without a name, or the names are not those of labels.
    """

    labels: NDArray[Any] = field(repr=False)
    names: Mapping[int, str]
    grid: Grid
    run: Run
    volume: Volume | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(self.labels, self.names, self.grid)
        view = self.labels.view()
        view.flags.writeable = False
        object.__setattr__(self, "labels", view)
        object.__setattr__(self, "names", MappingProxyType(dict(sorted(self.names.items()))))
        unnamed = [int(label) for label in np.flatnonzero(self._counts) if label and label not in self.names]
        if unnamed:
            raise SegmentationError(f"Labels without a name: {_listed(unnamed)}; named are {_told(self.names)}.")

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """Voxels of each label, from 0 on. Slice by slice: counting widens the numbers to 64 bit."""
        size = int(self.labels.max()) + 1
        counts = np.zeros(max(size, max(self.names) + 1), np.int64)
        for plane in self.labels:
            counts[:size] += np.bincount(plane.ravel(), minlength=size)
        return counts

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """Every label of the channel table, in its order; ``voxels`` is 0 where it was not found."""
        voxel_ml = abs(float(np.linalg.det(self.grid.affine[:3, :3]))) / 1000
        return tuple(
            Structure(label, name, int(self._counts[label]), float(self._counts[label]) * voxel_ml)
            for label, name in self.names.items()
        )

    @property
    def found(self) -> tuple[Structure, ...]:
        """The structures of at least one voxel."""
        return tuple(structure for structure in self.structures if structure.voxels)

    def __len__(self) -> int:
        return len(self.found)

    def middle_kji(self, label: int) -> tuple[int, int, int]:
        """A voxel of a structure close to its centre of mass: in the slice nearest to it the voxel nearest to it.

        A centre of mass itself may lie outside, e.g. between the lungs.

        Raises
        ------
        SegmentationError
            If no voxel has this label.
        """
        inside = self.labels == label
        weights = [inside.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
        if not weights[0].any():
            found = _told({structure.label: structure.name for structure in self.found})
            raise SegmentationError(f"Nothing was segmented as {label}; found were {found or 'none'}.")
        center = [float(np.average(np.arange(len(weight)), weights=weight)) for weight in weights]
        slices = np.flatnonzero(weights[0])
        k = int(slices[np.abs(slices - center[0]).argmin()])
        pixels = np.argwhere(inside[k])
        steps = (pixels - center[1:]) * self.grid.spacing_mm[1:]
        j, i = (int(index) for index in pixels[(steps**2).sum(axis=1).argmin()])
        return k, j, i

    def to_dataframe(self) -> pd.DataFrame:
        """The structures as a table, in the order of their labels; 0 voxels where one was not found.

        Columns ``series_uid, label, name, voxels, volume_ml``.
        """
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["series_uid", "label", "name", "voxels", "volume_ml"])

    def rows(self) -> list[dict[str, Any]]:
        """The table of `to_dataframe` as plain values."""
        return [{"series_uid": self.run.series_uid, **asdict(structure)} for structure in self.structures]

    def _repr_html_(self) -> str:
        return segmentation_html(self)


def _check(labels: NDArray[Any], names: Mapping[int, str], grid: Grid) -> None:
    if labels.dtype not in LABEL_KINDS:
        raise SegmentationError(f"Labels are uint8 or uint16, not {labels.dtype}.")
    if labels.shape != grid.shape:
        raise SegmentationError(f"Labels of shape {labels.shape} do not lie on a grid of {grid.shape}.")
    last = int(np.iinfo(np.uint16).max)
    wrong = [label for label, name in names.items() if type(label) is not int or not 1 <= label <= last or not name]
    if wrong or not names:
        raise SegmentationError(f"Names are given to labels from 1 to {last}, not {dict(names)!r}.")


def _told(names: Mapping[int, str]) -> str:
    return _listed([f"{label} {name}" for label, name in names.items()])


def _listed(words: list[Any]) -> str:
    """At most a dozen of them."""
    return ", ".join([*map(str, words[:12]), *(["..."] if len(words) > 12 else [])])
