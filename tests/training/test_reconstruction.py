"""The loop that trains any reconstruction network, with a lesson that takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.lessons import TINY, teach
from tomolens.core.errors import OptionError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.reconstruction import Job
from tomolens.core.volume import Unit, Volume
from tomolens.io.write import write_volume
from tomolens.training.fingerprint import Record, differences
from tomolens.training.reconstruction import ReconstructionConfig, config_for, lesson_of, train_reconstruction
from tomolens.training.runs import CHECKPOINT, RECORD, load_checkpoint, read_log


def test_a_run_learns_and_logs_the_held_out_loss_of_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch)
    learner = train_reconstruction(replace(TINY, rounds=3, steps=20, ema=0.5), tmp_path, tmp_path / "run", "cpu")
    losses = [row["val_loss"] for row in read_log(tmp_path / "run")]
    assert (learner.steps, len(losses)) == (60, 3)
    assert losses[-1] < 0.9 * losses[0]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch)
    whole = train_reconstruction(TINY, tmp_path, tmp_path / "whole", "cpu")
    saved: list[int] = []

    def stop(*_: object) -> None:
        saved.append(1)
        if len(saved) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reconstruction(TINY, tmp_path, tmp_path / "parts", "cpu", progress=stop)
    parts = train_reconstruction(TINY, tmp_path, tmp_path / "parts", "cpu")
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch)
    (tmp_path / "a.txt").write_text("one")
    train_reconstruction(TINY, tmp_path, tmp_path / "run", "cpu")
    train_reconstruction(TINY, tmp_path, tmp_path / "run", "cpu")
    (tmp_path / "a.txt").write_text("another")
    with pytest.raises(ReadError, match=r"run was trained on other data than these \(changed: scan a\)"):
        train_reconstruction(TINY, tmp_path, tmp_path / "run", "cpu")


def test_a_run_that_did_not_note_its_data_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch)
    train_reconstruction(TINY, tmp_path, tmp_path / "run", "cpu")
    state = load_checkpoint(tmp_path / "run")
    del state[RECORD]
    torch.save(state, tmp_path / "run" / CHECKPOINT)
    with pytest.raises(ReadError, match="did not note what it is trained on as this version does"):
        train_reconstruction(TINY, tmp_path, tmp_path / "run", "cpu")


def test_slices_in_another_order_of_axes_are_other_data_where_they_are_cut_as_they_lie(tmp_path: Path) -> None:
    config = replace(config_for(Job.SUPER_RESOLUTION), phantom_seeds=())
    voxels = np.random.default_rng(0).normal(40, 5, (40, 60, 64)).astype(np.int16)
    volume = Volume(voxels, Grid.from_axes(voxels.shape), Unit.ARBITRARY, "MR")
    (tmp_path / "mri").mkdir()
    write_volume(volume, tmp_path / "mri" / "a.nii.gz")
    before = lesson_of(config, tmp_path).record
    write_volume(volume.flipped(0), tmp_path / "mri" / "a.nii.gz")
    assert differences(before, lesson_of(config, tmp_path).record) == {"changed": ["axes of MR a.nii.gz"]}


def test_cubes_are_known_by_their_hu_alone(tmp_path: Path) -> None:
    config = replace(config_for(Job.SUPER_RESOLUTION), phantom_seeds=())
    image = np.random.default_rng(0).normal(-800, 30, (2, 51, 51, 51)).astype(np.int16)
    file = tmp_path / "lidc_cubes51" / "cubes.npz"
    file.parent.mkdir()
    np.savez(file, mask=image > 0)
    with pytest.raises(ReadError, match=r"cubes\.npz lacks image"):
        lesson_of(config, tmp_path)
    np.savez(file, image=image)
    before = lesson_of(config, tmp_path).record
    assert [what for what, _ in before] == ["cube 0", "cube 1"]
    np.savez(file, image=image.astype(np.float32), mask=image > 0)
    assert lesson_of(config, tmp_path).record == before
    np.savez(file, image=image[::-1])
    assert differences(before, lesson_of(config, tmp_path).record) == {"changed": ["cube 0", "cube 1"]}


@pytest.mark.parametrize(
    ("job", "file", "modality"),
    [
        (Job.DENOISING, "ct/a.nii.gz", "CT"),
        (Job.MRI, "mri/a.nii.gz", "MR"),
        (Job.SUPER_RESOLUTION, "mri/a.nii.gz", "MR"),
    ],
)
def test_every_lesson_knows_its_images_by_their_content(tmp_path: Path, job: Job, file: str, modality: str) -> None:
    config = replace(config_for(job), phantom_seeds=())
    scan = tmp_path / file
    scan.parent.mkdir()
    voxels = np.random.default_rng(0).normal(40, 5, (40, 80, 84)).astype(np.int16)
    voxels[4:36, 6:50, 8:52] += 300
    unit = Unit.HU if modality == "CT" else Unit.ARBITRARY

    def record_with(voxels: NDArray[np.int16]) -> Record:
        write_volume(Volume(voxels, Grid.from_axes(voxels.shape), unit, modality), scan)
        return lesson_of(config, tmp_path).record

    before = record_with(voxels)
    assert before[0][0].startswith("scan ")
    assert record_with(voxels.copy()) == before
    voxels[20, 20, 20] += 1
    assert record_with(voxels)[0] != before[0]


def test_a_job_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="job is 'baking'; accepted are ct-denoising, mri-reconstruction"):
        ReconstructionConfig(job="baking")
