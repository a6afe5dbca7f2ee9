"""The generated chest is a chest, and its truth is true."""

from __future__ import annotations

import numpy as np
import pytest

from tomolens.core.errors import OptionError
from tomolens.phantoms.chest import ChestPhantom, chest_phantom
from tomolens.phantoms.nodules import NoduleWish

COARSE = (2.5, 1.6, 1.6)
WISHES = (
    NoduleWish(12.0, "solid", "parenchyma"),
    NoduleWish(14.0, "part-solid", "parenchyma"),
    NoduleWish(13.0, "ground-glass", "parenchyma"),
    NoduleWish(11.0, "calcified", "juxtapleural"),
    NoduleWish(10.0, "solid", "juxtavascular"),
)


@pytest.fixture(scope="module")
def chest() -> ChestPhantom:
    return chest_phantom(5, spacing_mm=COARSE, nodules=WISHES, noise_hu=0.0)


def mean_around(chest: ChestPhantom, lps_mm: tuple[float, float, float], radius_mm: float) -> float:
    """Mean HU in a ball."""
    points = chest.volume.grid.to_mm(np.moveaxis(np.indices(chest.volume.shape), 0, -1))
    return float(chest.volume.voxels[np.linalg.norm(points - lps_mm, axis=-1) < radius_mm].mean())


def test_the_same_seed_gives_the_same_voxels_and_another_seed_another_patient() -> None:
    first, again, other = (chest_phantom(seed, spacing_mm=(5.0, 4.0, 4.0)) for seed in (3, 3, 4))
    assert np.array_equal(first.volume.voxels, again.volume.voxels)
    assert first.nodules == again.nodules
    assert first.volume.shape != other.volume.shape or not np.array_equal(first.volume.voxels, other.volume.voxels)


def test_every_nodule_wished_for_is_drawn_with_its_texture_at_its_place(chest: ChestPhantom) -> None:
    assert {nodule.texture for nodule in chest.nodules} == {"solid", "part-solid", "ground-glass", "calcified"}
    assert len(chest.nodules) == len(WISHES)
    expected = {"solid": (-120, 80), "part-solid": (-250, 60), "ground-glass": (-720, -450), "calcified": (150, 480)}
    for nodule in chest.nodules:
        low, high = expected[nodule.texture]
        assert low < mean_around(chest, nodule.center_lps_mm, 2.6) < high, nodule


def test_a_nodules_diameter_is_that_of_its_volume(chest: ChestPhantom) -> None:
    bare = chest_phantom(5, spacing_mm=COARSE, nodules=False, noise_hu=0.0)
    solid = next(n for n in chest.nodules if n.texture == "solid" and n.place == "parenchyma")
    points = chest.volume.grid.to_mm(np.moveaxis(np.indices(chest.volume.shape), 0, -1))
    near = np.linalg.norm(points - solid.center_lps_mm, axis=-1) < 0.75 * solid.diameter_mm
    gain = (chest.volume.voxels.astype(float) - bare.volume.voxels)[near]
    volume = gain.sum() / (solid.hu - bare.volume.voxels[near].mean()) * np.prod(COARSE)
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(solid.diameter_mm, rel=0.12)


def test_no_nodule_is_drawn_where_none_is_asked_for() -> None:
    assert chest_phantom(6, spacing_mm=(6.0, 4.0, 4.0), nodules=False).nodules == ()


def test_the_lungs_hold_air_and_the_nodules_and_have_a_likely_volume(chest: ChestPhantom) -> None:
    litres = chest.lungs.sum() * np.prod(chest.volume.spacing_mm) / 1e6
    assert 2.5 < litres < 8
    assert -880 < chest.volume.voxels[chest.lungs].mean() < -740
    for nodule in chest.nodules:
        k, j, i = np.rint(chest.volume.grid.to_kji(nodule.center_lps_mm)).astype(int)
        assert chest.lungs[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].any(), nodule


def test_a_flip_shows_the_heart_lies_left_the_liver_right_the_spine_behind(chest: ChestPhantom) -> None:
    voxels, grid = chest.volume.voxels, chest.volume.grid
    x, y, z = np.moveaxis(grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    assert chest.lungs[x < 0].sum() > 1.05 * chest.lungs[x > 0].sum()
    bone = voxels > 250
    assert y[bone & (np.abs(x) < 25)].mean() > 30
    gas = (voxels < -900) & (np.abs(x) < 90) & (z < -10) & ~chest.lungs & (y < -10) & (y > -75)
    assert x[gas].mean() > 15
    lowest_slices = slice(2, 8)
    soft = (voxels[lowest_slices] > 20) & (voxels[lowest_slices] < 140) & (np.abs(y[lowest_slices]) < 60)
    assert x[lowest_slices][soft].mean() < -5
    assert z[chest.lungs].min() < z[chest.lungs].max() - 200


def test_noise_is_as_strong_as_asked_for_in_the_middle_and_stronger_between_the_shoulders() -> None:
    quiet, noisy = (chest_phantom(8, spacing_mm=(5.0, 1.5, 1.5), nodules=False, noise_hu=hu) for hu in (0.0, 20.0))
    noise = noisy.volume.voxels.astype(float) - quiet.volume.voxels
    z = noisy.volume.grid.to_mm(
        np.stack([np.arange(len(noise)), 0 * np.arange(len(noise)), 0 * np.arange(len(noise))], 1)
    )
    lungs = noise[np.abs(z[:, 2] - 60) < 30][:, 60:140, 80:190]
    shoulders = noise[z[:, 2] > 185][:, 60:140, 80:190]
    assert 12 < lungs.std() < 40
    assert shoulders.std() > 1.2 * lungs.std()


def test_a_view_around_the_lungs_shows_them_whole() -> None:
    whole = chest_phantom(9, spacing_mm=(4.0, 3.0, 3.0), nodules=False)
    close = chest_phantom(9, spacing_mm=(4.0, 3.0, 3.0), nodules=False, around_lungs_mm=10.0)
    assert close.volume.voxels.size < 0.75 * whole.volume.voxels.size
    assert close.lungs.sum() == pytest.approx(whole.lungs.sum(), rel=0.02)
    faces = (close.lungs[0], close.lungs[-1], close.lungs[:, 0], close.lungs[:, -1], close.lungs[:, :, 0])
    assert not any(face.any() for face in faces)


def test_look_alikes_are_named_and_are_no_nodules(chest: ChestPhantom) -> None:
    assert {mark.kind for mark in chest.look_alikes} >= {"pleural plaque", "thickened fissure", "apical scar"}
    for mark in (mark for mark in chest.look_alikes if mark.kind != "scar"):
        for nodule in chest.nodules:
            apart = np.linalg.norm(np.subtract(mark.center_lps_mm, nodule.center_lps_mm))
            assert apart > mark.size_mm / 2 + nodule.diameter_mm / 2


@pytest.mark.parametrize("wrong", [{"spacing_mm": (0.0, 1.0, 1.0)}, {"noise_hu": -1.0}, {"sharpness": 2.0}])
def test_a_scan_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="not"):
        chest_phantom(1, **wrong)
