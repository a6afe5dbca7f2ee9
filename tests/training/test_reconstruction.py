"""The loop that trains any reconstruction network, with a lesson that takes milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.lessons import TINY, teach
from tomolens.core.errors import OptionError
from tomolens.training.reconstruction import ReconstructionConfig, train_reconstruction
from tomolens.training.runs import read_log


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


def test_a_job_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="job is 'baking'; accepted are ct-denoising, mri-reconstruction"):
        ReconstructionConfig(job="baking")
