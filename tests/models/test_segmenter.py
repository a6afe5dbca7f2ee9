from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from tests.models.own_bundles import metadata, write_bundle
from tomolens.core.card import ModelCard
from tomolens.core.errors import Cancelled, ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.models.inference import Backend
from tomolens.models.segmenter import Segmenter, load_segmenter

CPU = Backend(torch.device("cpu"), torch.float32)
STEPS = [{"do": "orient", "axcodes": "RAS"}, {"do": "space", "pixdim": [1.5, 1.5, 2.0]}]
WINDOWS = {"roi_size": [24, 24, 24], "overlap": 0.25, "mode": "gaussian", "batch": 2}


class Thresholds(nn.Module):
    """Answers -1 HU with background, and a label for each further step: what it should say is known."""

    def __init__(self, *levels: float) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [
                torch.full_like(image, 0.0),
                *(3.0 * n * (image - level).sign() for n, level in enumerate(self.levels, 1)),
            ],
            1,
        )


def segmenter(network: nn.Module, **ours) -> Segmenter:
    ours = {"recipe": {"steps": STEPS, "windows": WINDOWS}, **ours}
    return Segmenter(ModelCard.from_metadata(metadata(**ours)), network, "0" * 64, CPU)


def turned(degrees: tuple[float, float, float]) -> np.ndarray:
    directions = np.array([(0, 0, 1), (0, 1, 0), (1, 0, 0)], float)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [x for x in range(3) if x != axis]
        rotation = np.eye(3)
        rotation[a, a] = rotation[b, b] = np.cos(angle)
        rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
        directions = directions @ rotation.T
    return directions


def organs(grid: Grid) -> Volume:
    """Water in air, 200 HU to the left and in front, a smaller 600 HU above and to the right."""
    places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    lps = grid.to_mm(places) - grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    voxels = np.full(grid.shape, -1000, np.int16)
    voxels[np.linalg.norm(lps / (38, 34, 36), axis=-1) < 1] = 0
    voxels[np.linalg.norm(lps - (12, -8, -6), axis=-1) < 13] = 200
    voxels[np.linalg.norm(lps - (-14, 6, 12), axis=-1) < 9] = 600
    return Volume(voxels, grid)


GRIDS = {
    "axial": Grid.from_axes((40, 56, 60), (2.5, 1.6, 1.5)),
    "head first, numbered from above": Grid.from_axes((40, 56, 60), (2.5, 1.6, 1.5)).flipped(0).flipped(2),
    "sagittal": Grid.from_axes((40, 56, 60), (2.5, 1.6, 1.5)).permuted((2, 0, 1)).flipped(1),
    "oblique": Grid.from_axes((50, 56, 60), (1.8, 1.6, 1.5), (30, -20, 900), turned((12, -8, 17))),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("back", ["linear", "nearest"])
def test_labels_lie_on_their_own_anatomy_however_the_scan_lies(grid, back):
    recipe = {"steps": STEPS, "windows": WINDOWS, "answer": {"back": back}}
    volume = organs(grid)
    labels, _ = segmenter(Thresholds(100.0, 400.0), recipe=recipe).segment(volume)
    assert labels.shape == volume.shape
    assert labels.dtype == np.uint8
    for label, low, high in ((1, 100, 400), (2, 400, 700)):
        truth = (volume.voxels > low) & (volume.voxels < high)
        drawn = (labels == label) & ndimage.binary_dilation(truth, iterations=2)  # the edge of 600 passes 200
        dice = 2 * (truth & drawn).sum() / (truth.sum() + drawn.sum())
        off = grid.to_mm(np.argwhere(drawn)).mean(axis=0) - grid.to_mm(np.argwhere(truth)).mean(axis=0)
        assert dice > 0.85
        assert np.abs(off).max() < 0.6


class Everywhere(nn.Module):
    """Says label 1 of every voxel."""

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), torch.ones_like(image)], 1)


@pytest.mark.parametrize("back", ["linear", "nearest"])
@pytest.mark.parametrize(("slices", "spacing", "wished"), [(74, 0.5, 3.0), (110, 0.625, 3.0), (47, 1.0, 2.0)])
def test_the_last_slices_are_labelled_though_the_networks_spacing_does_not_divide_the_scan(
    slices, spacing, wished, back
):
    steps = [STEPS[0], {"do": "space", "pixdim": [3.0, 3.0, wished]}]
    scan = organs(Grid.from_axes((slices, 20, 20), (spacing, 3.0, 2.9)))
    tilted = scan.grid.affine.copy()
    tilted[1, 0] = 0.1
    for volume in (scan, scan.flipped(0), replace(scan, grid=Grid(scan.shape, tilted))):
        recipe = {"steps": steps, "windows": WINDOWS, "answer": {"back": back}}
        labels, _ = segmenter(Everywhere(), recipe=recipe).segment(volume)
        assert (labels == 1).all()


@pytest.mark.parametrize("order", ["spaced, then cropped", "cropped, then spaced"])
def test_what_was_cropped_away_stays_background_and_the_last_slices_are_labelled_all_the_same(order):
    grid = Grid.from_axes((74, 20, 20), (0.5, 3.0, 3.0))
    voxels = np.full(grid.shape, -500, np.int16)
    voxels[30:, 5:15] = 500
    space, crop = {"do": "space", "pixdim": [3.0, 3.0, 3.0]}, {"do": "crop_foreground"}
    steps = [STEPS[0], space, crop, crop] if order.startswith("spaced") else [STEPS[0], crop, space]
    labels, _ = segmenter(Everywhere(), recipe={"steps": steps, "windows": WINDOWS}).segment(Volume(voxels, grid))
    assert (labels[30:, 5:15] == 1).all()
    assert not labels[:27].any()
    assert not labels[:, :5].any()
    assert not labels[:, 15:].any()


def test_a_tilted_gantry_does_not_shear_the_labels():
    straight = Grid.from_axes((40, 56, 60), (2.5, 1.6, 1.5))
    affine = straight.affine.copy()
    affine[1, 0] = 0.7
    volume = organs(Grid(straight.shape, affine))
    assert volume.grid.is_sheared
    labels, _ = segmenter(Thresholds(100.0, 400.0)).segment(volume)
    truth = volume.voxels > 400
    assert 2 * (truth & (labels == 2)).sum() / (truth.sum() + (labels == 2).sum()) > 0.85


def test_a_network_sees_the_patient_as_its_bundle_says():
    seen = []

    class Looking(nn.Module):
        def forward(self, image):
            seen.append(image)
            return torch.zeros(1, 3, *image.shape[2:])

    recipe = {"steps": [{"do": "orient", "axcodes": "RAS"}]}
    segmenter(Looking(), recipe=recipe).segment(organs(GRIDS["sagittal"]))
    right, front, up = np.argwhere(seen[0][0, 0].numpy() == 600).mean(axis=0) / np.array(seen[0].shape[2:])
    assert right > 0.5  # the 600 HU structure lies right, behind and above
    assert front < 0.5
    assert up > 0.5


def test_a_model_folder_segments_by_its_name_or_path_and_the_run_says_what_ran(tmp_path):
    folder = write_bundle(tmp_path / "tiny", metadata())
    model = load_segmenter(folder, device="cpu")
    labels, run = model.segment(organs(GRIDS["axial"]))
    assert model.labels == {1: "spleen", 2: "liver"}
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert (run.model, run.device, run.precision) == ("tiny", "cpu", "float32")
    assert len(run.weights_sha256) == 64
    assert set(run.seconds) == {"prepare", "network", "labels", "total"}


@pytest.mark.parametrize("half", [True, False])
def test_a_run_says_why_its_device_was_chosen_where_that_was_left_to_the_program(tmp_path, monkeypatch, half):
    monkeypatch.setattr("tomolens.models.inference._has_bfloat16", lambda device: True)
    recipe = {"steps": STEPS, "windows": WINDOWS, "half": half}
    folder, told = write_bundle(tmp_path / "tiny", metadata(recipe=recipe)), []
    model = load_segmenter(folder)
    _, run = model.segment(organs(GRIDS["axial"]), told.append)
    expected = "in bfloat16, which it is fast in" if half else "in float32, as its authors ran it."
    assert expected in run.notes[0]
    assert run.precision in run.notes[0]
    assert [step.stage for step in told if step.remark] == [run.notes[0]]
    _, named = load_segmenter(folder, device="cpu").segment(organs(GRIDS["axial"]))
    assert not any("runs" in note for note in named.notes)


def test_a_model_of_several_images_takes_them_in_order_and_on_one_grid_alone():
    contract = {"modality": "MR", "unit": "a.u.", "max_spacing_mm": 6, "min_extent_mm": 8, "channels": ["T1", "T2"]}
    answer = {"activation": "none", "decision": "threshold", "threshold": 0.5}

    class Second(nn.Module):
        def forward(self, image):
            return image[:, 1:] / 600

    model = segmenter(
        Second(),
        input=contract,
        labels={"1": "bright in T2"},
        recipe={"steps": STEPS, "windows": WINDOWS, "answer": answer},
    )
    t2 = replace(organs(GRIDS["axial"]), unit=Unit.ARBITRARY, modality="MR")
    t1 = t2.with_voxels(np.zeros(t2.shape, np.int16), "nothing")
    labels, _ = model.segment([t1, t2])
    truth = t2.voxels > 400
    assert 2 * (truth & (labels == 1)).sum() / (truth.sum() + (labels == 1).sum()) > 0.85
    assert not model.segment([t2, t1])[0].any()
    with pytest.raises(ContractError, match=r"reads 2 images .* T1, T2; 1 were given"):
        model.segment(t2)
    with pytest.raises(ContractError, match="do not lie on one grid"):
        model.segment([t1, t2.flipped(0)])


def test_overlapping_regions_keep_the_smaller_on_top_and_the_run_says_what_lies_under():
    class Regions(nn.Module):
        def forward(self, image):
            return torch.cat([image - 100, image - 400], 1)

    answer = {"activation": "sigmoid", "decision": "threshold"}
    model = segmenter(
        Regions(),
        labels={"1": "whole tumour", "2": "enhancing"},
        recipe={"steps": STEPS, "windows": WINDOWS, "answer": answer},
    )
    volume = organs(GRIDS["axial"])
    labels, run = model.segment(volume)
    assert (labels[volume.voxels == 600] == 2).mean() > 0.8
    assert any("whole tumour" in note and "ml" in note for note in run.notes)


def test_only_the_largest_part_of_a_label_is_kept_where_the_bundle_says_so():
    recipe = {"steps": STEPS, "windows": WINDOWS, "answer": {"largest": [1]}}
    volume = organs(GRIDS["axial"])
    voxels = volume.voxels.copy()
    voxels[2:5, 2:6, 2:6] = 200
    model = segmenter(Thresholds(100.0, 400.0), recipe=recipe)
    labels, _ = model.segment(volume.with_voxels(voxels, "a speck"))
    assert not labels[2:5, 2:6, 2:6].any()
    assert (labels == 1).any()


def test_a_scan_the_model_was_not_made_for_is_refused_before_any_work():
    with pytest.raises(ContractError, match="it is MR, the model takes CT"):
        segmenter(Thresholds(0.0)).segment(replace(organs(GRIDS["axial"]), modality="MR"))


def test_a_cancel_leaves_between_two_windows():
    def stop_at_the_third(step):
        if step.stage == "segment" and step.done >= 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        segmenter(Thresholds(100.0)).segment(organs(GRIDS["axial"]), stop_at_the_third)


def test_a_detector_is_no_segmenter():
    with pytest.raises(ModelError, match="does detection; a model for segmentation"):
        load_segmenter("lung-nodule-centernet")


def test_a_recipe_that_says_nonsense_is_refused_with_the_word():
    with pytest.raises(ModelError, match="'loudest'"):
        segmenter(Thresholds(0.0), recipe={"answer": {"decision": "loudest"}})
    with pytest.raises(ModelError, match="step"):
        segmenter(Thresholds(0.0), recipe={"steps": [{"do": "guess"}]}).segment(organs(GRIDS["axial"]))
