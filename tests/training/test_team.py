"""Several processes train what one would; spawned ones import this module, so what they run stands at its top."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.test_detector import SMALL, data
from tomolens.core.errors import Cancelled, OptionError, TomolensError
from tomolens.core.progress import Step
from tomolens.models.inference import Backend
from tomolens.training.config import RunConfig
from tomolens.training.detector import train_detector
from tomolens.training.learner import Batch, Learner, Terms
from tomolens.training.runs import CHECKPOINT, load_checkpoint
from tomolens.training.team import Team, check_shared, team_of

CONFIG = RunConfig(rounds=1, steps=6, batch=4)
EXACT = Backend(torch.device("cpu"), torch.float32)


def network() -> nn.Module:
    """Without batch norm, whose statistics members on a CPU do not share."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1))


def batches(team: Team) -> Iterator[Batch]:
    """Six batches of four; each member draws all of them and keeps its own part."""
    for step in range(6):
        drawn = torch.Generator().manual_seed(step)
        image = torch.randn(4, 1, 8, 8, 8, generator=drawn)
        wanted = torch.rand(4, 1, 8, 8, 8, generator=drawn) > 0.7
        kept = team.share(range(4), 4)
        yield {"image": image[kept], "wanted": wanted[kept], "counted": torch.tensor([0.0, 1.0, 2.0, 5.0])[kept]}


def loss(answer: torch.Tensor, batch: Batch) -> Terms:
    error = nn.functional.binary_cross_entropy_with_logits(answer, batch["wanted"].float(), reduction="none")
    return {"loss": ((error.mean(dim=(1, 2, 3, 4)) * batch["counted"]).sum(), batch["counted"].sum())}


def learned(team: Team) -> tuple[torch.Tensor, dict[str, float]]:
    learner = Learner(network(), CONFIG, replace(team, backend=EXACT))
    losses = learner.train(batches(team), loss)
    return torch.cat([p.detach().flatten() for p in learner.network.parameters()]), losses


def follow(team: Team, folder: Path) -> None:
    torch.save(learned(team)[0], folder / "follower.pt")


def die(team: Team, folder: Path) -> None:
    os._exit(7)


def test_two_processes_learn_what_one_does_though_their_parts_count_unevenly(tmp_path: Path) -> None:
    alone, alone_losses = learned(Team(EXACT))
    with team_of(2, "cpu", follow, tmp_path) as team:
        together, losses = learned(team)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert losses == pytest.approx(alone_losses, rel=1e-4)
    torch.testing.assert_close(torch.load(tmp_path / "follower.pt"), together, atol=0, rtol=0)


def test_two_processes_train_a_detector_in_one_folder_and_go_on_in_it(tmp_path: Path) -> None:
    def stop(step: Step) -> None:
        if step.stage.startswith("train") and step.done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        train_detector(SMALL, data(), tmp_path, "cpu", processes=2, progress=stop)
    assert load_checkpoint(tmp_path)["round"] == 1
    learner = train_detector(SMALL, data(), tmp_path, "cpu", processes=2)
    assert learner.steps == SMALL.total_steps == load_checkpoint(tmp_path)["steps"]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + SMALL.rounds


def test_a_process_that_dies_is_named_and_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(TomolensError, match=r"ended too early.*\{1: 7\}"), team_of(2, "cpu", die, tmp_path) as team:
        learned(team)


def test_a_batch_that_cannot_be_shared_evenly_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="batch of 2 cannot be shared evenly by 3"):
        train_detector(SMALL, data(), tmp_path, "cpu", processes=3)
    assert not (tmp_path / CHECKPOINT).exists()


def test_no_processes_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 1, not 0"), team_of(0, "cpu", follow):
        pass
    with pytest.raises(OptionError, match="at least 1, not 0"):
        check_shared(4, 0)


def test_the_members_shares_are_all_of_each_batch_and_nothing_twice() -> None:
    members = [Team(EXACT, rank, 2) for rank in range(2)]
    shares = [member.share(range(8), 4) for member in members]
    assert shares == [[0, 1, 4, 5], [2, 3, 6, 7]]
