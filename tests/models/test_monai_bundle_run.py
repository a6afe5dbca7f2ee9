from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tomolens import detect_nodules, load_detector, read_detection, read_volume
from tomolens.models.monai_config import INFERENCE, inference_config
from tomolens.models.registry import BUNDLES, Bundle

SAMPLE = Path(__file__).parents[2] / "sample_volumes" / "chest_ct"
DETECTORS = [
    folder
    for folder in sorted(p.parent.parent for p in BUNDLES.glob("*/configs/metadata.json"))
    if Bundle.open(folder).card.task == "detection"
]


@pytest.mark.parametrize("folder", DETECTORS, ids=lambda folder: folder.name)
def test_a_shipped_detector_holds_the_configuration_that_its_card_asks_for(folder: Path) -> None:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert json.loads((folder / INFERENCE).read_text(encoding="utf-8")) == inference_config(metadata)
    assert "python -m monai.bundle run" in (folder / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", DETECTORS, ids=lambda folder: folder.name)
def test_monai_runs_a_shipped_detector_and_finds_what_tomolens_finds(folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", INFERENCE]
    wishes = ["--image", str(SAMPLE), "--output", str(tmp_path), "--device", "cpu"]
    done = subprocess.run([*words, *wishes], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = read_detection(tmp_path / "findings.json")
    expected = detect_nodules(read_volume(SAMPLE), load_detector(folder, device="cpu"))
    assert len(found) == len(expected) > 0
    assert found.min_score == expected.min_score
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.center_lps_mm, other.center_lps_mm, atol=1e-6)
        assert one.score == pytest.approx(other.score, abs=1e-6)
