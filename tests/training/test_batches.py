"""Rounds of batches: every example as often as asked for, the same each time, no step more or less."""

from collections import Counter

import pytest
import torch

from tomolens.core.errors import OptionError
from tomolens.models.inference import Backend
from tomolens.training.batches import Batches
from tomolens.training.config import RunConfig
from tomolens.training.team import Team

ALONE = Team(Backend.choose("cpu"))


def numbers(indices):
    return [{"image": torch.tensor(float(n))} for n in indices]


def shown(config, number=0, team=ALONE):
    return [batch["image"].tolist() for batch in Batches(config, team, number, numbers)]


def test_without_echo_every_example_is_shown_once_and_in_order():
    config = RunConfig(steps=3, batch=4, workers=0)
    assert shown(config, number=1) == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]]


@pytest.mark.parametrize("steps", [60, 61, 63])
def test_an_echo_shows_examples_several_times_and_takes_no_step_more(steps):
    config = RunConfig(steps=steps, batch=8, workers=0, echo=4)
    batches = shown(config)
    assert [len(batch) for batch in batches] == [8] * steps
    times = Counter(n for batch in batches for n in batch)
    assert set(times) == set(config.indices(0)) == set(range(-(-steps // 4) * 8))
    assert max(times.values()) < 20
    assert not set(config.indices(0)) & set(config.indices(1))


def test_each_prepared_batch_comes_before_its_echoes_which_mix_all_that_came():
    batches = shown(RunConfig(steps=40, batch=8, workers=0, echo=4))
    for step in range(0, 40, 4):
        assert batches[step] == list(range(2 * step, 2 * step + 8))
        assert all(n < 2 * step + 8 for echo in batches[step + 1 : step + 4] for n in echo)
    assert len({n // 8 for n in batches[39]}) > 2


def test_a_round_is_the_same_each_time_and_unlike_the_next():
    config = RunConfig(steps=12, batch=4, workers=0, echo=3)
    assert shown(config, 2) == shown(config, 2)
    first, second = ([[n - start for n in batch] for batch in shown(config, r)] for r, start in ((0, 0), (1, 16)))
    assert first != second


def test_each_of_a_team_echoes_its_own_part():
    config = RunConfig(steps=12, batch=4, workers=0, echo=3)
    one, two = (shown(config, team=Team(ALONE.backend, rank, 2)) for rank in range(2))
    assert {n % 4 < 2 for batch in one for n in batch} == {True}
    assert {n % 4 < 2 for batch in two for n in batch} == {False}


def test_an_echo_of_nothing_is_refused():
    with pytest.raises(OptionError, match="echo is at least 1, not 0"):
        RunConfig(echo=0)
