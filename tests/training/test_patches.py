from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomolens.training.backgrounds import Background, Mark
from tomolens.training.nodules import Pasted, decoy, donor_of, paste, turned
from tomolens.training.patches import Patches, PatchRecipe, target_of
from tomolens.training.scanner import thick_slices


def lung(seed: int = 0, kind: str = "scan", marks: tuple[Mark, ...] = ()) -> Background:
    """Noisy parenchyma with a wall on one side."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(-860, 25, (96, 96, 96)).astype(np.int16)
    voxels[:, :20] = 40
    inner = rng.integers(30, 90, (400, 3)).astype(np.int16)
    near = np.stack([rng.integers(8, 88, 100), np.full(100, 22), rng.integers(8, 88, 100)], 1).astype(np.int16)
    return Background(f"lung-{seed}", voxels, marks, inner, near, 1.0, kind)


def ball(diameter: float = 9.0, hu: float = 40.0, texture: int | None = 5, malignancy: float | None = None):
    distance = np.linalg.norm(np.indices((31, 31, 31)) - 15, axis=0)
    mask = distance <= diameter / 2
    return donor_of("ball", np.where(mask, hu, -860.0), mask, texture, malignancy)


def patches(**changes) -> Patches:
    recipe = PatchRecipe(kinds=(("scan", 1.0),), **changes)
    return Patches([lung(0), lung(1)], [ball()], [[], []], range(200), 5, recipe)


def test_without_nodules_to_insert_those_that_are_marked_are_shown_where_they_are() -> None:
    lungs = [lung(0, marks=(Mark((50.0, 50.0, 50.0), 10.0, True),))]
    recipe = PatchRecipe(kinds=(("scan", 1.0),))
    shown = [
        bool(patch["positive"].any())
        for patch in map(Patches(lungs, [], [[]], range(60), 5, recipe).__getitem__, range(60))
    ]
    assert sum(shown) / 60 > 0.6


def test_a_pasted_nodule_lies_where_the_mark_says() -> None:
    rng = np.random.default_rng(1)
    target = np.full((64, 64, 64), -860, np.float32)
    before = target.copy()
    pasted = paste(target, turned(ball(), rng, altered=False), np.array([30, 25, 40]), 1.0, rng)
    assert pasted is not None
    changed = np.argwhere(target - before > 300)
    np.testing.assert_allclose(changed.mean(axis=0), pasted.center_kji, atol=0.5)
    np.testing.assert_allclose(pasted.center_kji, (30, 25, 40), atol=1.0)
    assert pasted.diameter_mm == pytest.approx((len(changed) * 6 / np.pi) ** (1 / 3), rel=0.3)


def test_a_nodule_that_drowns_in_the_wall_changes_nothing_and_is_not_counted() -> None:
    rng = np.random.default_rng(2)
    target = np.full((64, 64, 64), 60, np.float32)
    assert paste(target, turned(ball(hu=-150.0), rng, altered=False), np.array([30, 30, 30]), 1.0, rng) is None
    assert (target == 60).all()


def test_the_chest_wall_stays_under_a_nodule_at_the_pleura() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        target = np.full((64, 64, 64), -860, np.float32)
        target[:, :30] = 120
        if paste(target, turned(ball(), rng), np.array([30, 31, 30]), 1.0, rng) is not None:
            assert target[:, :30].min() >= 119


def test_thick_slices_blur_a_nodule_along_the_slices_only() -> None:
    sharp, thick = (np.full((64, 64, 64), -860, np.float32) for _ in range(2))
    for target, thickness in ((sharp, 1.0), (thick, 5.0)):
        rng = np.random.default_rng(3)
        paste(target, turned(ball(12), rng), np.array([32, 32, 32]), thickness, rng)
    slope = [np.abs(np.diff(t[:, 32, 32])).max() for t in (sharp, thick)]
    assert slope[1] < 0.7 * slope[0]


def test_a_decoy_is_no_nodule_and_needs_room() -> None:
    rng = np.random.default_rng(0)
    voxels = lung().voxels
    assert decoy(voxels, np.array([1, 1, 1]), rng) is None
    assert decoy(voxels, np.array([50, 50, 50]), rng) is not None


def test_the_nearest_cells_are_positive_and_point_to_the_nodule() -> None:
    mark = Mark((21.0, 30.5, 40.2), 10.0, True)
    target = target_of([mark], 64, np.ones((64,) * 3, bool))
    assert target.positive.sum() == 4
    for cell in np.argwhere(target.positive):
        place = (cell + 0.5) * 4 - 0.5 + 4 * target.box[:3, *cell]
        np.testing.assert_allclose(place, mark.center_kji, atol=1e-4)
        assert np.exp(target.box[3][tuple(cell)]) * 4 == pytest.approx(10.0)


def test_around_a_nodule_an_excluded_mark_and_mirrored_edges_no_cell_is_negative() -> None:
    valid = np.ones((64,) * 3, bool)
    valid[:8] = False
    marks = [Mark((30.0, 30.0, 30.0), 12.0, True), Mark((50.0, 50.0, 50.0), 10.0, False)]
    target = target_of(marks, 64, valid)
    assert not target.counted[:2].any()
    assert not target.counted[12, 12, 12]
    assert not target.positive[12, 12, 12]
    near = np.linalg.norm((np.stack(np.indices((16,) * 3), -1) + 0.5) * 4 - 0.5 - 30, axis=-1) < 8
    assert (target.counted[near] == target.positive[near]).all()


@pytest.mark.parametrize("recipe", [{}, {"decoys": 1.0, "inserted": 1.0}])
def test_the_same_seed_and_number_give_the_same_patch(recipe) -> None:
    first, others = patches(**recipe)[17], patches(**recipe)
    assert not torch.equal(others[18]["image"], first["image"])
    again = others[17]
    assert all(torch.equal(first[name], again[name]) for name in first)


def coarse(edge: int, seed: int = 0, kind: str = "scan", marks: tuple[Mark, ...] = ()) -> Background:
    """Parenchyma so uneven that most balls of it are seen elsewhere; all of it is free to paste into."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((edge,) * 3, np.float32), 2)
    voxels = (-750 + 100 * field / field.std()).astype(np.int16)
    places = np.argwhere(np.ones((edge // 4,) * 3)).astype(np.int16) * 4
    return Background(f"coarse-{seed}", voxels, marks, places, places[:0], 1.0, kind)


@dataclass
class Blended:
    """What was tried to be pasted into one patch, and what of it is seen."""

    at: np.ndarray
    is_nodule: bool
    seen: Pasted | None


@pytest.fixture
def blended(monkeypatch: pytest.MonkeyPatch) -> list[Blended]:
    kept: list[Blended] = []

    def noted(target, piece, at_kji, thickness_mm, rng):
        seen = paste(target, piece, at_kji, thickness_mm, rng)
        kept.append(Blended(at_kji, piece.texture is not None, seen))
        return seen

    monkeypatch.setattr("tomolens.training.patches.paste", noted)
    return kept


def drawn(lungs: list[Background], count: int, blended: list[Blended], **changes) -> Iterator[list[Blended]]:
    """For each of so many patches what was blended into it and is seen."""
    recipe = PatchRecipe(kinds=((lungs[0].kind, 1.0),), **changes)
    made = Patches(lungs, [ball()], [[] for _ in lungs], range(count), 5, recipe)
    for n in range(count):
        blended.clear()
        made[n]
        yield [one for one in blended if one.seen is not None]


@pytest.mark.parametrize("edge", [160, 64])
def test_as_many_patches_have_a_decoy_as_the_recipe_says(blended, edge: int) -> None:
    lungs = [coarse(edge, 0), coarse(edge, 1)]
    with_decoy = [len(seen) for seen in drawn(lungs, 60, blended, decoys=0.3, inserted=0.0)]
    assert set(with_decoy) <= {0, 1}
    assert np.mean(with_decoy) == pytest.approx(0.3, abs=0.1)
    assert all(len(seen) == 1 for seen in drawn(lungs, 20, blended, decoys=1.0, inserted=0.0))


def test_as_many_nodules_are_inserted_as_the_recipe_says(blended) -> None:
    counts = [len(seen) for seen in drawn([coarse(160)], 40, blended, decoys=0.0, inserted=1.0)]
    assert set(counts) == {1, 2, 3}
    assert np.mean(counts) == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(("edge", "kind"), [(160, "scan"), (64, "phantom"), (51, "cube")])
def test_nothing_that_is_pasted_meets_anything_else_or_leaves_the_patch(blended, edge: int, kind: str) -> None:
    own = Mark((edge / 2, edge / 2, edge / 2), 12.0, False)
    lungs, decoys = [coarse(edge, 0, kind, (own,)), coarse(64, 1, kind)], 0
    for seen in drawn(lungs, 30, blended, decoys=1.0, inserted=1.0, most_inserted=3):
        for number, one in enumerate(seen):
            assert (one.at >= 1).all()
            assert (one.at <= 62).all()
            for other in seen[:number]:
                apart = np.linalg.norm(np.subtract(one.seen.center_kji, other.seen.center_kji))
                assert apart > (one.seen.diameter_mm + other.seen.diameter_mm) / 2
        decoys += sum(not one.is_nodule for one in seen)
    assert decoys > 24


def test_a_patch_without_free_lung_stays_as_it_is(blended) -> None:
    full = coarse(64, marks=(Mark((32.0, 32.0, 32.0), 120.0, False),))
    assert not any(drawn([full], 10, blended, decoys=1.0, inserted=1.0))
    nowhere = Background(full.name, full.voxels, (), full.inner[:1], full.inner[:0], 1.0, "scan")
    assert all(len(seen) <= 1 for seen in drawn([nowhere], 10, blended, decoys=1.0, inserted=1.0))


def test_no_decoy_is_taken_from_where_a_nodule_may_be(monkeypatch) -> None:
    taken = []
    monkeypatch.setattr("tomolens.training.patches.decoy", lambda voxels, center, rng: taken.append(center))
    marked = coarse(64, marks=(Mark((20.0, 20.0, 20.0), 10.0, True),))
    made = Patches([marked], [ball()], [[]], range(3), 5, PatchRecipe(decoys=1.0, inserted=0.0))
    for n in range(3):
        made[n]
    assert min(np.linalg.norm(center - 20) for center in taken) > 26


def test_what_is_marked_is_brighter_than_the_lung_around_it() -> None:
    drawn, bright, marked = patches(inserted=1.0, decoys=0.0), 0, 0
    for n in range(40):
        patch = drawn[n]
        for cell in np.argwhere(patch["positive"].numpy())[:1]:
            place = (cell + 0.5) * 4 - 0.5 + 4 * patch["box"][:3, *cell].numpy()
            k, j, i = np.clip(np.round(place), 1, 62).astype(int)
            bright += float(patch["image"][0, k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2].mean()) > -0.75
            marked += 1
    assert marked >= 30
    assert bright >= 0.95 * marked


def test_patches_without_insertion_hold_only_what_is_known() -> None:
    drawn = patches(inserted=0.0)
    assert not any(drawn[n]["positive"].any() for n in range(10))


@pytest.mark.parametrize("thickness", [1.5, 2.5, 5.0, 6.0])
def test_thick_slices_blur_along_the_slices_and_move_nothing(thickness: float) -> None:
    ramp = np.broadcast_to(np.arange(64.0)[:, None, None], (64, 64, 64)).astype(np.float32)
    thick = thick_slices(ramp, thickness, np.random.default_rng(3))
    np.testing.assert_allclose(thick[6:-6], ramp[6:-6], atol=0.05)


def test_a_nodule_keeps_its_texture_and_size_unless_it_is_altered() -> None:
    pieces = [turned(ball(), np.random.default_rng(seed), altered=False) for seed in range(20)]
    assert {(piece.texture, piece.scale) for piece in pieces} == {(ball().texture, 1.0)}
    altered = [turned(ball(), np.random.default_rng(seed)) for seed in range(60)]
    assert {piece.texture for piece in altered} == {1, 3, 5}


def test_the_recipe_says_how_many_patches_are_read_in_thick_slices() -> None:
    def roughness_along_slices(share: float) -> float:
        """Beside that across them: noise that comes after the slices is the same in both."""
        images = [patches(thick=share, decoys=0.0)[n]["image"][0].numpy() for n in range(24)]
        return float(np.median([np.abs(np.diff(i, axis=0)).mean() / np.abs(np.diff(i, axis=2)).mean() for i in images]))

    assert roughness_along_slices(1.0) < 0.8 * roughness_along_slices(0.0)
