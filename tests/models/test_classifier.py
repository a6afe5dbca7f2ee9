from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from tests.models.own_bundles import metadata, write_bundle
from tomolens.core.card import Calibration
from tomolens.core.errors import Cancelled, ContractError, ModelError, OutOfMemory
from tomolens.core.grid import Grid
from tomolens.core.progress import Step
from tomolens.core.volume import Unit, Volume
from tomolens.io.read import read_volume
from tomolens.models.classifier import EDGE, NoduleClassifier, load_classifier, surroundings
from tomolens.models.detector import NoduleDetector, load_detector
from tomolens.models.inference import Backend
from tomolens.models.networks import build
from tomolens.models.registry import find_bundle

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


def test_malignancy_is_shown_as_the_card_calibrates_it(sample_box: Volume) -> None:
    plain = classifier()
    card = replace(plain.card, calibration=Calibration(malignancy=0.5, malignancy_offset=-1.0))
    scaled = NoduleClassifier(card, Brightness(), "", plain.backend)
    center = sample_box.grid.to_mm(np.array(sample_box.shape) / 2)[None]
    (before,), (after,) = (model.classify(sample_box, center) for model in (plain, scaled))
    assert after.malignancy_logit == before.malignancy_logit
    assert before.malignancy == pytest.approx(expit(before.malignancy_logit))
    assert after.malignancy == pytest.approx(expit(0.5 * before.malignancy_logit - 1.0))


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


class Hungry(nn.Module):
    """Runs out of memory above a number of places at once, on what the test takes for a GPU or everywhere."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        if len(patches) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return Brightness()(patches)


def test_out_of_memory_shows_fewer_places_at_once_says_so_and_changes_no_verdict() -> None:
    image, places, told = torch.rand(60, 60, 60), np.random.default_rng(0).uniform(10, 50, (20, 3)), list[Step]()
    look = classifier(Hungry(5)).look(told.append)
    assert look.at(image, places) == classifier().judge(image, places)
    assert look.notes == [
        "Out of memory on cpu looking again at 16 places at once; trying 8.",
        "Out of memory on cpu looking again at 8 places at once; trying 4.",
    ]
    assert [step.stage for step in told if step.remark] == look.notes


def test_where_not_one_place_fits_the_needed_memory_is_named() -> None:
    with pytest.raises(OutOfMemory, match=r"second stage needs about .* GiB of free memory even for one place"):
        classifier(Hungry(0)).judge(torch.zeros(50, 50, 50), np.array([[25.0, 25, 25]]))


class Spots(nn.Module):
    """A detector that is sure of a place every 24 mm, whatever it is shown."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        answer = torch.zeros(1, 5, *(size // 4 for size in image.shape[2:]))
        answer[:, 0] = -20
        answer[:, 0, ::6, ::6, ::6] = 1
        return answer


def spotting(second: NoduleClassifier, sha256: str = "") -> NoduleDetector:
    return NoduleDetector(second.card, Spots(), sha256, Backend(torch.device("cpu"), torch.float32), second)


def test_where_not_one_place_fits_on_a_gpu_the_cpu_takes_over_and_the_detectors_run_notes_it(
    monkeypatch: pytest.MonkeyPatch, sample_box: Volume
) -> None:
    class Starved(Hungry):
        """What the test takes for a GPU computes in bfloat16."""

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return super().forward(patches) if torch.is_autocast_enabled("cpu") else Brightness()(patches)

    monkeypatch.setattr("tomolens.models.inference._has_bfloat16", lambda device: False)
    monkeypatch.setattr(Backend, "name", property(lambda self: "cpu" if self == Backend.choose("cpu") else "cuda:0"))
    gpu = Backend(torch.device("cpu"), torch.bfloat16)
    findings, run = spotting(NoduleClassifier(classifier().card, Starved(0), "", gpu)).detect(sample_box)
    assert len(findings) > 10
    assert run.notes[-5:] == (
        "Out of memory on cuda:0 looking again at 16 places at once; trying 8.",
        "Out of memory on cuda:0 looking again at 8 places at once; trying 4.",
        "Out of memory on cuda:0 looking again at 4 places at once; trying 2.",
        "Out of memory on cuda:0 looking again at 2 places at once; trying 1.",
        "Out of memory on cuda:0 looking again at 1 places at once; going on with the CPU.",
    )


def test_an_answer_that_is_no_number_is_refused() -> None:
    class Lost(nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return torch.full((len(patches), 5), float("nan"))

    with pytest.raises(ModelError, match="NaN or infinite"):
        classifier(Lost()).judge(torch.zeros(50, 50, 50), np.array([[25.0, 25, 25]]))


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


def detector_naming(folder: Path, second: Path) -> Path:
    """A detector of one's own, untrained, whose card names a second stage."""
    settings = {"channels": [8, 8, 8, 8], "pyramid": 8}
    card = metadata("mine", task="detection", network="center_net", settings=settings, input=CT)
    card["tomolens"] |= {"second_stage": str(second), "recipe": {}}
    return write_bundle(folder, card)


def test_the_shipped_second_stages_were_calibrated_with_the_shipped_detector() -> None:
    for name in ("lung-nodule-classifier-3d", "lung-nodule-classifier-25d"):
        detector = load_detector(device="cpu", second_stage=name)
        assert isinstance(detector, NoduleDetector)
        assert detector.doubt == ""


def test_a_second_stage_that_was_calibrated_with_another_detector_is_refused_unless_it_is_asked_for(
    tmp_path: Path,
) -> None:
    known = {"detector": "theirs", "weights_sha256": "ab" * 32}
    second = second_stage(tmp_path / "second", calibrated_for=known)
    mine = detector_naming(tmp_path / "mine", second)
    with pytest.raises(ModelError, match=r"tiny-second was calibrated with theirs \(weights abab.*\), not with mine"):
        load_detector(mine, device="cpu")
    asked = load_detector(mine, device="cpu", second_stage=second)
    assert isinstance(asked, NoduleDetector)
    assert "these scores are not calibrated" in asked.doubt
    right = {"detector": "mine", "weights_sha256": find_bundle(mine).weights_sha256}
    mended = second_stage(tmp_path / "mended", calibrated_for=right)
    paired = load_detector(detector_naming(tmp_path / "again", mended), device="cpu")
    assert isinstance(paired, NoduleDetector)
    assert paired.doubt == ""


def test_every_run_notes_that_its_scores_are_not_calibrated(tmp_path: Path, sample_box: Volume) -> None:
    known = {"detector": "theirs", "weights_sha256": "ab" * 32}
    second = load_classifier(second_stage(tmp_path, calibrated_for=known), device="cpu")
    told: list[Step] = []
    _, run = spotting(second, "cd" * 32).detect(sample_box, told.append)
    (note,) = run.notes
    assert note.endswith("(weights cdcdcdcdcdcd): these scores are not calibrated.")
    assert note in [step.stage for step in told if step.remark]
    assert spotting(second, "ab" * 32).doubt == ""


def test_a_card_from_before_the_detector_was_named_still_loads_and_the_run_notes_what_is_not_known(
    tmp_path: Path,
) -> None:
    detector = load_detector(detector_naming(tmp_path / "mine", second_stage(tmp_path / "second")), device="cpu")
    assert isinstance(detector, NoduleDetector)
    assert "does not say which detector it was calibrated with; with mine" in detector.doubt
