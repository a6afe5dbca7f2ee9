"""What one image file holds, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.reconstruction import is_invented

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.grid import Grid
    from tomolens.core.volume import Volume


@dataclass(frozen=True, eq=False)
class ImageContent:
    """Voxels in their place, and what else the file says.

    Parameters
    ----------
    voxels
        (k, j, i), int16 or float32.
    facts
        As `facts_of` wrote them; empty in a file of other software.
    notes
        What a user should know of the file.
    """

    voxels: NDArray[Any]
    grid: Grid
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def trusted_facts(self) -> Mapping[str, Any]:
        """The facts while the numbers are those they were written with; else empty.

        Programs keep them when they write other numbers, a mask for instance, under an old header.
        """
        return self.facts if self.facts.get("range") == value_range(self.voxels) else {}

    @property
    def history(self) -> tuple[str, ...]:
        """The steps of the trusted facts, and the notes; that a GAN made it stays with whatever numbers are written."""
        told = self.facts.get("history", ())
        steps = self.trusted_facts.get("history", [step for step in told if is_invented([step])])
        return (*steps, *self.notes)


def facts_of(volume: Volume) -> dict[str, Any]:
    """What image formats have no field for, as plain values to be written into their free text."""
    return {
        "modality": volume.modality,
        "padding": volume.padding,
        "frame_of_reference": volume.grid.frame_of_reference,
        "history": list(volume.history),
        "range": value_range(volume.voxels),
    }


def value_range(voxels: NDArray[Any]) -> list[float]:
    """The least and the greatest number, as float32 holds them: wider numbers are read back as that."""
    return [float(np.float32(voxels.min())), float(np.float32(voxels.max()))]
