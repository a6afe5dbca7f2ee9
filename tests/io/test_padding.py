"""Padding that no file names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.io.slices import write_series
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.padding import with_padding_found
from tomolens.io.read import read_volume
from tomolens.io.write import write_volume

GRID = Grid.from_axes((3, 40, 40), (2.5, 0.8, 0.8))


def scan(outside: int) -> Volume:
    """Air, lung and tissue with noise, and a rim of one number around them."""
    numbers = np.random.default_rng(4).normal(0, 20, GRID.shape)
    numbers += np.array([-1000, -850, 40])[np.arange(GRID.shape[2]) % 3]
    numbers[:, :4] = outside
    return Volume(np.rint(numbers).astype(np.int16), GRID)


@pytest.mark.parametrize("outside", [-2000, -3024])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_rim_of_one_number_below_air_is_padding(tmp_path: Path, outside: int, suffix: str) -> None:
    read = read_volume(write_volume(scan(outside), tmp_path / f"scan{suffix}"))
    assert read.padding == outside
    assert read.history[-1].startswith(f"{outside} HU, in 10.0% of the voxels, was taken for padding")
    assert with_padding_found(read) is read


def test_of_dicom_without_a_padding_value_too(tmp_path: Path) -> None:
    write_series(tmp_path, scan(-2000).voxels, RescaleIntercept=0)
    assert read_volume(tmp_path).padding == -2000


def test_what_may_be_measured_is_none() -> None:
    few, spread = scan(-1024).voxels.copy(), scan(-1024).voxels.copy()
    few[0, 0, :50] = -2000
    spread[:, :4] = -1200 - 10 * np.arange(40)
    for volume in (
        scan(-1024),
        Volume(few, GRID),
        Volume(spread, GRID),
        replace(scan(-2000), unit=Unit.ARBITRARY, modality="MR"),
    ):
        assert with_padding_found(volume) is volume
    named = replace(scan(-2000), padding=-1024.0)
    assert with_padding_found(named) is named
