from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tomolens import (
    Grid,
    KSpace,
    ReconstructOptions,
    Volume,
    detect_nodules,
    load_detector,
    load_reconstructor,
    read_detection,
    read_kspace,
    read_volume,
    reconstruct,
    write_volume,
)
from tomolens.core.reconstruction import Job
from tomolens.io.kspace import write_kspace
from tomolens.io.reconstructions import read_reconstruction
from tomolens.models.monai_config import INFERENCE, RUNNABLE, how_to_run, inference_config
from tomolens.models.registry import BUNDLES, SECOND_STAGE, Bundle

SAMPLES = Path(__file__).parents[2] / "sample_volumes"
SHIPPED = [Bundle.open(file.parents[1]) for file in sorted(BUNDLES.glob("*/configs/metadata.json"))]
RUN_ALONE = [bundle.folder for bundle in SHIPPED if bundle.card.task in RUNNABLE]
DETECTORS = [bundle.folder for bundle in SHIPPED if bundle.card.task == "detection"]
RECONSTRUCTORS = [bundle.folder for bundle in SHIPPED if bundle.card.task in set(Job)]


def run(folder: Path, image: Path, out: Path, *wishes: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", INFERENCE]
    words += ["--image", str(image), "--output", str(out), "--device", "cpu", *wishes]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_every_shipped_model_runs_alone_but_for_second_stages() -> None:
    assert {bundle.card.task for bundle in SHIPPED if bundle.folder not in RUN_ALONE} == {SECOND_STAGE}


@pytest.mark.parametrize("folder", RUN_ALONE, ids=lambda folder: folder.name)
def test_a_shipped_model_holds_the_configuration_that_its_card_asks_for(folder: Path) -> None:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert json.loads((folder / INFERENCE).read_text(encoding="utf-8")) == inference_config(metadata)
    assert how_to_run(Bundle.open(folder).card) in (folder / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", DETECTORS, ids=lambda folder: folder.name)
def test_monai_runs_a_shipped_detector_and_finds_what_tomolens_finds(folder: Path, tmp_path: Path) -> None:
    done = run(folder, SAMPLES / "chest_ct", tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_detection(tmp_path / "findings.json")
    expected = detect_nodules(read_volume(SAMPLES / "chest_ct"), load_detector(folder, device="cpu"))
    assert len(found) == len(expected) > 0
    assert found.min_score == expected.min_score
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.center_lps_mm, other.center_lps_mm, atol=1e-6)
        assert one.score == pytest.approx(other.score, abs=1e-6)


def source_for(job: Job, folder: Path) -> tuple[Path, Volume | KSpace]:
    """A small file: thick slices of noise with an edge, or one slice of k-space."""
    if job is Job.MRI:
        sample = read_kspace(SAMPLES / "brain_kspace.npz")
        grid = Grid((1, *sample.shape[1:]), sample.grid.affine)
        path = write_kspace(KSpace(sample.data[:1], sample.acquired[:1], grid), folder / "scan.npz")
        return path, read_kspace(path)
    grid = Grid.from_axes((6, 48, 40), (3.0, 0.8, 0.8), (-10.0, 20.0, -300.0))
    voxels = np.random.default_rng(0).normal(40, 25, grid.shape)
    voxels[:, :, 20:] -= 120
    write_volume(Volume(np.rint(voxels).astype(np.int16), grid), folder / "scan.nii.gz")
    return folder / "scan.nii.gz", read_volume(folder / "scan.nii.gz", modality="CT")


@pytest.mark.parametrize("folder", RECONSTRUCTORS, ids=lambda folder: folder.name)
def test_monai_runs_a_shipped_reconstruction_and_makes_what_tomolens_makes(folder: Path, tmp_path: Path) -> None:
    card = Bundle.open(folder).card
    image, source = source_for(Job(card.task), tmp_path)
    wishes = ["--allow_gan", "True"] if card.generative else []
    wishes += ["--modality", "CT"] if card.task == Job.SUPER_RESOLUTION else []
    done = run(folder, image, tmp_path / "out", *wishes)
    assert done.returncode == 0, done.stderr
    made = read_reconstruction(tmp_path / "out")
    options = ReconstructOptions(generative=card.generative)
    expected = reconstruct(source, load_reconstructor(folder, device="cpu"), options)
    assert made.run.weights_sha256 == expected.run.weights_sha256
    assert made.volume.grid.same_place(expected.volume.grid)
    np.testing.assert_allclose(made.volume.voxels, expected.volume.voxels, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.uncertainty, expected.uncertainty, rtol=1e-4, atol=1e-5)
    assert made.checks == expected.checks
    assert (made.generative, made.warnings) == (card.generative, expected.warnings)


def test_a_gan_runs_with_monai_only_where_that_is_accepted(tmp_path: Path) -> None:
    image, _ = source_for(Job.SUPER_RESOLUTION, tmp_path)
    done = run(BUNDLES / "thin-slices-gan", image, tmp_path / "out", "--modality", "CT")
    assert done.returncode != 0
    assert "GAN: texture may be invented" in done.stderr
    assert not (tmp_path / "out").exists()
