"""However a detector is run, it finds the same: in bfloat16 or float32, whole or in slabs, by torch or OpenVINO."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from tomolens import Detection, Volume, detect_nodules, load_detector, read_volume
from tomolens.core.errors import Cancelled, OptionError
from tomolens.core.progress import Step, silent
from tomolens.models import inference, openvino_engine
from tomolens.models.detector import peaks_of
from tomolens.models.inference import Backend, Pass
from tomolens.models.networks import folded
from tomolens.models.registry import find_bundle
from tomolens.models.tensors import isotropic, normalised
from tomolens.models.weights import filled

SAMPLE = Path(__file__).parent.parent / "sample_volumes" / "chest_ct"
CPU = torch.device("cpu")
HERE = Backend.choose("cpu")
FLOAT = Backend(CPU, torch.float32)
COMPARED = 0.1
"""The default threshold; what stands at it in one may fall below it in the other."""

NEAR_MM = 1.0
DIAMETER = 0.1

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason='needs OpenVINO: pip install "tomolens[openvino]"'
)
needs_bfloat16 = pytest.mark.skipif(
    HERE.dtype != torch.bfloat16, reason="this CPU has no fast bfloat16, and a whole chest takes many minutes without"
)


@pytest.fixture(scope="module")
def sample() -> Volume:
    return read_volume(SAMPLE)


@pytest.fixture(scope="module")
def exact(sample: Volume) -> Detection:
    return found(sample, FLOAT)


def found(volume: Volume, backend: Backend) -> Detection:
    detector = load_detector(device="cpu")
    detector.backend = backend
    return detect_nodules(volume, detector).at(COMPARED)


def assert_agree(one: Detection, other: Detection, score: float = 0.05) -> None:
    """Each finding has its like in the other detection; one that is not there at all must be about at the threshold."""
    for here, there in ((one, other), (other, one)):
        assert len(here) > 0
        places = np.array([finding.center_lps_mm for finding in there])
        for finding in here:
            away = np.linalg.norm(places - finding.center_lps_mm, axis=1)
            if away.min() >= NEAR_MM and finding.score < COMPARED + score:
                continue
            like = there.findings[int(away.argmin())]
            assert away.min() < NEAR_MM
            assert like.score == pytest.approx(finding.score, abs=score)
            assert like.diameter_mm == pytest.approx(finding.diameter_mm, rel=DIAMETER)


def test_bfloat16_and_float32_agree_on_a_nodule_of_the_sample_and_what_is_around_it(sample: Volume) -> None:
    """On every processor: 48 mm take seconds where bfloat16 is emulated."""
    (nodule, *_) = json.loads(SAMPLE.with_suffix(".json").read_text())["nodules"]
    scan, network = sample.canonical(), folded(filled(find_bundle())[1])
    low = np.floor(scan.grid.to_kji(nodule["center_lps_mm"]) - 28 / np.array(scan.spacing_mm)).astype(int)
    size = np.ceil(56 / np.array(scan.spacing_mm)).astype(int)
    box = isotropic(scan.cropped(tuple(low.tolist()), tuple(size.tolist())))
    image = normalised(box.voxels[4:52, 4:52, 4:52])
    one, other = (peaks_of(Pass(network, b, silent).over(image)) for b in (FLOAT, Backend(CPU, torch.bfloat16)))
    away = np.linalg.norm(box.grid.to_mm(one.kji[:1] + 4) - nodule["center_lps_mm"])
    assert one.scores[0] > 0.5
    assert away < nodule["diameter_mm"] / 2
    assert other.scores[0] == pytest.approx(one.scores[0], abs=0.05)
    assert other.diameters_mm[0] == pytest.approx(one.diameters_mm[0], rel=DIAMETER)
    assert np.linalg.norm(other.kji[0] - one.kji[0]) < NEAR_MM


@needs_bfloat16
def test_bfloat16_and_float32_agree_on_the_sample(sample: Volume, exact: Detection) -> None:
    assert_agree(found(sample, Backend(CPU, torch.bfloat16)), exact)


@needs_bfloat16
def test_bfloat16_and_float32_agree_on_a_real_scan(shared_data: Path) -> None:
    scan = read_volume(shared_data / "open" / "ct" / "LIDC-IDRI-0314")
    assert_agree(found(scan, HERE), found(scan, FLOAT))


def test_slabs_find_what_the_whole_finds_and_the_run_keeps_what_was_said(
    sample: Volume, exact: Detection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WHOLE_UP_TO_VOXELS", 1)
    in_slabs = found(sample, Backend(CPU, torch.float32, reason="Chosen by a test."))
    assert in_slabs.run.notes == ("Chosen by a test.",)
    assert_agree(in_slabs, exact)


@needs_openvino
def test_openvino_finds_what_torch_finds(sample: Volume, exact: Detection) -> None:
    detector = load_detector(device="openvino")
    detection = detect_nodules(sample, detector).at(COMPARED)
    assert detection.run.device == "openvino"
    assert_agree(detection, exact)


@needs_openvino
def test_openvino_stops_when_it_is_told_to(sample: Volume) -> None:
    def stop(step: Step) -> None:
        if step.stage == inference.STAGE:
            raise Cancelled

    with pytest.raises(Cancelled):
        detect_nodules(sample, load_detector(device="openvino"), progress=stop)


def test_openvino_that_is_not_installed_is_refused_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install .tomolens\[openvino\]"):
        load_detector(device="openvino")
