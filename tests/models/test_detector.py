from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tomolens.core.card import Calibration
from tomolens.core.errors import ModelError
from tomolens.models.classifier import load_classifier
from tomolens.models.detector import load_detector, peaks_of
from tomolens.models.reconstructor import load_reconstructor
from tomolens.models.registry import BUNDLES, Bundle, find_bundle, list_models


def answer(*peaks: tuple[tuple[int, int, int], float, tuple[float, float, float], float]) -> torch.Tensor:
    """A network's answer that is sure of nothing but the given (cell, score, offset in cells, diameter mm)."""
    output = torch.zeros(5, 12, 12, 12)
    output[0] = -20
    for cell, score, offset, diameter in peaks:
        output[0][cell] = torch.logit(torch.tensor(score))
        output[1:4, *cell] = torch.tensor(offset)
        output[4][cell] = np.log(diameter / 4)
    return output


def test_a_peak_is_read_at_its_offset_from_the_centre_of_its_cell() -> None:
    peaks = peaks_of(answer(((2, 5, 7), 0.8, (0.25, 0.0, -0.5), 8.0)))
    np.testing.assert_allclose(peaks.kji, [[2 * 4 + 1.5 + 1, 5 * 4 + 1.5, 7 * 4 + 1.5 - 2]], atol=1e-5)
    np.testing.assert_allclose(peaks.diameters_mm, [8.0], rtol=1e-5)
    np.testing.assert_allclose(peaks.scores, [0.8], rtol=1e-5)


def test_peaks_come_surest_first_and_below_the_floor_none() -> None:
    peaks = peaks_of(
        answer(((1, 1, 1), 0.3, (0, 0, 0), 5), ((6, 6, 6), 0.9, (0, 0, 0), 5), ((10, 1, 1), 0.01, (0, 0, 0), 5))
    )
    np.testing.assert_allclose(peaks.scores, [0.9, 0.3], rtol=1e-5)


def test_of_two_peaks_in_one_sphere_the_surer_stays() -> None:
    peaks = peaks_of(answer(((4, 4, 4), 0.9, (0, 0, 0), 24), ((4, 4, 6), 0.6, (0, 0, 0), 6)))
    assert len(peaks.scores) == 1
    assert peaks.scores[0] == pytest.approx(0.9)


def test_no_peak_is_an_empty_answer() -> None:
    assert len(peaks_of(answer()).scores) == 0


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the default model's folder, to break."""
    folder = tmp_path / "broken"
    shutil.copytree(find_bundle().folder, folder)
    return folder


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(ModelError, match=list_models()[0].name):
        load_detector("no-such-model")


def test_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"configs/metadata\.json"):
        load_detector(tmp_path)


def test_a_missing_key_is_named(broken: Path) -> None:
    file = broken / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["tomolens"]["default_min_score"]
    file.write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="default_min_score"):
        load_detector(broken)


def test_truncated_weights_are_refused(broken: Path) -> None:
    weights = broken / "models" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="does not hold the weights"):
        load_detector(broken)


def test_absent_weights_are_refused(broken: Path) -> None:
    (broken / "models" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_detector(broken)


def test_an_expression_in_a_bundle_is_data_and_is_never_run(broken: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    file = broken / "configs" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["description"] = f"$open({str(trace)!r}, 'w')"
    file.write_text(json.dumps(metadata))
    load_detector(broken, device="cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    "folder", sorted(p.parent.parent for p in BUNDLES.glob("*/configs/metadata.json")), ids=lambda p: p.name
)
def test_every_shipped_model_is_whole_and_small(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.card.name == folder.name
    assert bundle.weights.stat().st_size <= 20 * 2**20
    assert "Apache License" in (folder / "LICENSE").read_text()
    readme = (folder / "docs" / "README.md").read_text()
    assert all(str(value) in readme for value in bundle.card.figures.values())
    load = {"detection": load_detector, "nodule classification": load_classifier}.get(
        bundle.card.task, load_reconstructor
    )
    assert load(bundle.card.name, device="cpu").weights_sha256 == bundle.weights_sha256


def test_the_default_detector_looks_again_and_its_scores_are_calibrated() -> None:
    detector = load_detector(device="cpu")
    assert detector.second_stage is not None
    assert detector.second_stage.card.calibration.classifier > 0
    assert load_detector(device="cpu", second_stage="none").card.calibration != Calibration()
