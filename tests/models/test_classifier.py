from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.models.own_bundles import metadata, write_bundle
from tomolens.core.errors import Cancelled, ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.read import read_volume
from tomolens.models.classifier import EDGE, NoduleClassifier, load_classifier, surroundings
from tomolens.models.detector import load_detector
from tomolens.models.inference import Backend
from tomolens.models.networks import build

SAMPLE = Path(__file__).parents[2] / "sample_volumes" / "lungs_ct.nii.gz"
TINY = {"channels": [4, 4, 8, 8]}
CT = {"modality": "CT", "unit": "HU", "max_spacing_mm": 5, "min_extent_mm": 16}


class Brightness(nn.Module):
    """Answers with the mean of the middle 4 mm, so that the truth is known; textures by thirds of the window."""

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        middle = slice(EDGE // 2 - 2, EDGE // 2 + 2)
        mean = patch[:, 0, middle, middle, middle].mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean, -(mean + 1).abs(), -(mean - 0).abs(), -(mean - 1).abs()], dim=1)


def classifier(network: nn.Module | None = None) -> NoduleClassifier:
    card = load_detector(device="cpu").card
    return NoduleClassifier(card, network or Brightness(), "", Backend(torch.device("cpu"), torch.float32))


def second_stage(folder: Path, network: str = "nodule_cnn_3d", **ours) -> Path:
    card = metadata("tiny-second", task="nodule classification", network=network, settings=TINY, input=CT, **ours)
    return write_bundle(folder, card)


@pytest.fixture(scope="module")
def sample_box() -> Volume:
    return read_volume(SAMPLE, modality="CT")


def test_what_lies_beyond_the_image_is_air() -> None:
    image = torch.zeros(60, 60, 60)
    corner, middle = surroundings(image, [(0, 59, 30), (30.4, 29.6, 30)])
    assert corner.shape == (1, EDGE, EDGE, EDGE)
    assert (corner[0, :24] == -1).all()
    assert (corner[0, :, 25:] == -1).all()
    assert (corner[0, 24:, :25, :] == 0).all()
    assert (middle == 0).all()


def test_a_place_is_in_the_middle_of_what_is_seen() -> None:
    image = torch.zeros(80, 80, 80)
    image[33, 41, 52] = 1.0
    seen = surroundings(image, [(33, 41, 52)])[0, 0]
    assert seen[EDGE // 2, EDGE // 2, EDGE // 2] == 1
    assert seen.sum() == 1


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_places_in_the_patient_are_judged_whatever_the_order_and_spacing_of_the_voxels(flips) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 0.8 * flips[2]], [0, 0.8 * flips[1], 0], [2.5 * flips[0], 0, 0]])
    grid = Grid((40, 120, 120), affine)
    voxels = np.full(grid.shape, -1000, np.int16)
    voxels[18:23, 50:64, 80:94] = 400
    bright, dark = grid.to_mm((20, 56.5, 86.5)), grid.to_mm((20, 56.5, 30))
    first, second = classifier().classify(Volume(voxels, grid, Unit.HU, "CT"), [bright, dark])
    assert first.logit == pytest.approx(1.0, abs=0.05)
    assert second.logit == pytest.approx(-1.0, abs=0.05)
    assert (first.texture, second.texture) == ("solid", "ground glass")
    assert first.malignancy < 0.5 < second.malignancy


def test_no_place_gives_no_verdict() -> None:
    volume = Volume(np.full((40, 40, 40), -900, np.int16), Grid.from_axes((40, 40, 40)), Unit.HU, "CT")
    assert classifier().classify(volume, []) == []


def test_an_mr_is_refused() -> None:
    volume = Volume(np.zeros((40, 40, 40), np.int16), Grid.from_axes((40, 40, 40)), Unit.ARBITRARY, "MR")
    with pytest.raises(ContractError, match="it is MR"):
        classifier().classify(volume, [(20, 20, 20)])


def test_looking_again_can_be_stopped() -> None:
    def stop(step) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        classifier().judge(torch.zeros(50, 50, 50), np.array([[25.0, 25, 25]]), stop)


@pytest.mark.parametrize("name", ["nodule_cnn_3d", "nodule_views_25d"])
def test_both_networks_answer_for_each_place_alone(name) -> None:
    torch.manual_seed(0)
    network = build(name, TINY).eval()
    patches = torch.randn(3, 1, EDGE, EDGE, EDGE)
    with torch.inference_mode():
        together, alone = network(patches), network(patches[1:2])
    assert together.shape == (3, 5)
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


def test_the_flat_network_looks_at_the_middle_slices_of_all_three_axes_and_nowhere_else() -> None:
    torch.manual_seed(0)
    network = build("nodule_views_25d", TINY).eval()
    patch = torch.randn(1, 1, EDGE, EDGE, EDGE)
    with torch.inference_mode():
        before = network(patch)
        for axis in (2, 3, 4):
            changed = patch.clone()
            changed.select(axis, EDGE // 2)[..., :20, :20] = 5.0
            assert not torch.allclose(network(changed), before)
        patch[..., :20, :20, :20] = 5.0
        torch.testing.assert_close(network(patch), before)


def test_a_detector_is_no_second_stage() -> None:
    with pytest.raises(ModelError, match="does detection; a nodule classifier is needed"):
        load_classifier("lung-nodule-centernet")


def test_the_score_follows_the_calibration_of_the_second_stage(tmp_path: Path, sample_box: Volume) -> None:
    folder = second_stage(tmp_path, calibration={"detector": 0.0, "classifier": 0.0, "offset": -1.0})
    findings, run = load_detector(device="cpu", second_stage=folder).detect(sample_box)
    assert {round(finding.score, 6) for finding in findings} == {round(1 / (1 + np.e), 6)}
    assert {finding.texture for finding in findings} <= {"ground glass", "part-solid", "solid"}
    assert all(finding.malignancy is not None for finding in findings)
    assert run.options["second_stage"] == "tiny-second 0.1"
    assert run.seconds["second stage"] > 0


def test_without_a_second_stage_nothing_is_said_of_texture(sample_box: Volume) -> None:
    findings, run = load_detector(device="cpu", second_stage="none").detect(sample_box)
    assert findings
    assert {(finding.texture, finding.malignancy) for finding in findings} == {("", None)}
    assert "second_stage" not in run.options
