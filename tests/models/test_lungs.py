from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.errors import ContractError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.models.lungs import block_means, find_lungs


def chest(shape=(50, 90, 120), spacing=(3.0, 3.0, 3.0), room_air=-1000) -> Volume:
    """A body of water in air, two textured lungs in it and a sheet of foam under it."""
    k, j, i = np.indices(shape)
    size = np.array(shape)
    voxels = np.full(shape, room_air, np.int16)
    voxels[((j - size[1] * 0.45) / (size[1] * 0.36)) ** 2 + ((i - size[2] / 2) / (size[2] * 0.46)) ** 2 < 1] = 40
    texture = np.random.default_rng(0).normal(0, 90, shape)
    for side in (0.3, 0.7):
        lung = ((j - size[1] * 0.45) / (size[1] * 0.25)) ** 2 + ((i - size[2] * side) / (size[2] * 0.16)) ** 2 < 1
        voxels[lung & (k > 4) & (k < size[0] - 4)] = (-850 + texture[lung & (k > 4) & (k < size[0] - 4)]).astype(
            np.int16
        )
    voxels[:, int(size[1] * 0.86) : int(size[1] * 0.94), 5:-5] = -900
    return Volume(voxels, Grid.from_axes(shape, spacing, (-180.0, -130.0, -400.0)))


def test_both_lungs_are_found_and_table_and_room_are_not() -> None:
    volume = chest()
    lungs = find_lungs(volume)
    inside = volume.grid.to_mm([(25, 40, 36), (25, 40, 84)])
    outside = volume.grid.to_mm([(25, 80, 60), (25, 2, 2), (25, 40, 60)])
    assert lungs.holds(inside).all()
    assert not lungs.holds(outside).any()


def test_a_nodule_at_the_pleura_lies_in_the_mask() -> None:
    volume = chest()
    voxels = volume.voxels.copy()
    edge = int(np.flatnonzero(voxels[25, 40] < -500)[np.flatnonzero(voxels[25, 40] < -500) > 10][0])
    voxels[23:28, 38:43, edge : edge + 5] = 30
    place = volume.grid.to_mm([(25, 40, edge + 2)])
    assert find_lungs(Volume(voxels, volume.grid)).holds(place).all()


def test_a_scan_cropped_tight_to_the_lungs_keeps_them() -> None:
    volume = chest()
    tight = volume.cropped((5, 20, 17), (40, 41, 86))
    lungs = find_lungs(tight)
    assert lungs.holds(volume.grid.to_mm([(25, 40, 36), (25, 40, 84)])).all()


def test_padding_below_room_air_is_outside() -> None:
    volume = chest(room_air=-3024)
    assert not find_lungs(volume).holds(volume.grid.to_mm([(25, 2, 2)])).any()


@pytest.mark.parametrize("fill", [0, -1000])
def test_a_volume_without_lung_is_refused(fill: int) -> None:
    empty = Volume(np.full((40, 60, 60), fill, np.int16), Grid.from_axes((40, 60, 60), (3, 3, 3)))
    with pytest.raises(ContractError, match="No lung was found"):
        find_lungs(empty)


def test_a_head_in_air_is_refused() -> None:
    k, j, i = np.indices((60, 80, 80))
    head = (k - 30) ** 2 + (j - 40) ** 2 + (i - 40) ** 2 < 27**2
    sinus = (k - 30) ** 2 + (j - 28) ** 2 + (i - 40) ** 2 < 4**2
    voxels = np.where(head & ~sinus, 40, -1000).astype(np.int16)
    with pytest.raises(ContractError, match="No lung was found"):
        find_lungs(Volume(voxels, Grid.from_axes((60, 80, 80), (3, 3, 3))))


def test_block_means_keep_their_place() -> None:
    grid = Grid.from_axes((9, 13, 17), (1.0, 0.7, 0.7), (5.0, -3.0, 11.0))
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    for axis in range(3):
        ramp = Volume(grid.to_mm(index)[..., axis].astype(np.float32), grid)
        means, coarse = block_means(ramp, 3.0)
        there = coarse.to_mm(np.moveaxis(np.indices(means.shape), 0, -1))[..., axis]
        np.testing.assert_allclose(means, there, atol=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 0.75, 0.78), (3.0, 3.0, 1.5), (5.0, 0.5, 0.6)])
def test_block_means_of_hounsfield_units_are_exactly_the_means(spacing: tuple[float, float, float]) -> None:
    voxels = np.random.default_rng(1).integers(-1024, 3071, (7, 26, 31)).astype(np.int16)
    means, _ = block_means(Volume(voxels, Grid.from_axes(voxels.shape, spacing)), 3.0)
    k, j, i = (max(1, round(3.0 / mm)) for mm in spacing)
    _, rows, columns = means.shape
    slices = voxels[min(k, 7) // 2 :: k][: len(means), : rows * j, : columns * i]
    expected = slices.reshape(len(means), rows, j, columns, i).mean(axis=(2, 4), dtype=np.float32)
    np.testing.assert_array_equal(means, expected)


def test_the_box_holds_the_mask_with_its_margin_and_stays_in_the_scan() -> None:
    volume = chest()
    lungs = find_lungs(volume)
    start, shape = lungs.box_kji(volume.grid, 8.0)
    box = volume.grid.cropped(start, shape)
    assert box.contains(lungs.grid.to_mm(np.argwhere(lungs.mask))).all()
    assert min(start) >= 0
    assert all(a + n <= m for a, n, m in zip(start, shape, volume.shape, strict=True))


def test_the_last_slices_of_a_scan_count_though_they_fill_no_block() -> None:
    volume = chest(shape=(302, 80, 100), spacing=(1.0, 3.0, 3.0))
    deep = Volume(volume.voxels[5:298].repeat(2, axis=0)[:302].copy(), volume.grid)  # lung up to the last slice
    places = deep.grid.to_mm([(k, 36, 30) for k in (0, 150, 299, 300, 301)])
    assert find_lungs(deep).holds(places).all()


def test_table_foam_that_fills_the_side_of_a_cropped_scan_is_not_lung() -> None:
    volume = chest()
    voxels = volume.voxels.copy()
    foam = np.random.default_rng(1).normal(-900, 80, (50, 20, 120))
    voxels[:, 70:] = foam.astype(np.int16)
    cropped = Volume(voxels, volume.grid).cropped((2, 8, 10), (46, 82, 100))
    lungs = find_lungs(cropped)
    assert lungs.holds(volume.grid.to_mm([(25, 40, 36), (25, 40, 84)])).all()
    assert not lungs.holds(volume.grid.to_mm([(25, 84, 60), (25, 82, 20)])).any()


def test_lungs_that_are_both_cut_by_the_image_are_kept() -> None:
    volume = chest()
    cut = volume.cropped((0, 0, 30), (50, 90, 60))
    assert find_lungs(cut).holds(volume.grid.to_mm([(25, 40, 36), (25, 40, 84)])).all()


def test_lungs_that_are_one_part_from_side_to_side_stay_whatever_else_looks_like_lung() -> None:
    volume = chest()
    voxels = volume.voxels.copy()
    texture = np.random.default_rng(2).normal(-870, 80, (50, 90, 120))
    voxels[20:30, 36:44, 40:80] = texture[20:30, 36:44, 40:80].astype(np.int16)
    voxels[8:28, 62:75, 50:68] = texture[8:28, 62:75, 50:68].astype(np.int16)
    cut = Volume(voxels, volume.grid).cropped((0, 0, 30), (50, 78, 60))
    assert find_lungs(cut).holds(volume.grid.to_mm([(35, 40, 36), (35, 40, 84)])).all()
