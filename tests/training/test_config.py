from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tomolens.core.errors import OptionError
from tomolens.training.config import RunConfig
from tomolens.training.detector import TrainConfig
from tomolens.training.patches import PatchRecipe

FULL = TrainConfig(
    start_from="lung-nodule-centernet", settings={"channels": (8, 16)}, recipe=PatchRecipe(kinds=(("cube", 1.0),))
)


def test_the_configuration_survives_its_file() -> None:
    read = TrainConfig.from_json(FULL.to_json())
    assert read.to_json() == FULL.to_json()
    assert read.recipe == FULL.recipe
    assert read.phantom_seeds == FULL.phantom_seeds


def test_what_is_left_out_keeps_its_default() -> None:
    assert TrainConfig.from_json('{"steps": 5, "recipe": {"edge": 32}}') == TrainConfig(
        steps=5, recipe=PatchRecipe(edge=32)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"step": 5}', r"run\.json has the unknown key 'step'; accepted are seed, rounds, steps, .*val_patches"),
        ('{"recipe": {"inserts": 1}}', r"run\.json, recipe has the unknown key 'inserts'; accepted are edge, kinds"),
        ('{"rounds": "seven"}', "run.json, rounds: 'seven' is not of the kind that is needed, int"),
        ('{"rounds": true}', "True is not of the kind that is needed, int"),
        ('{"rounds": 0}', "rounds is at least 1, not 0"),
        ('{"ema": 1.0}', "ema is at least 0 and below 1"),
        ('{"learning_rate": 0}', "learning_rate is above 0"),
        ('{"recipe": {"kinds": [["scan"]]}}', r"\['scan'\] has 1 values, 2 are needed"),
        ('{"recipe": 3}', "holds 3 where an object"),
        ("[1]", r"holds \[1\] where an object"),
        ("rounds: 3", "run.json is not JSON"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        TrainConfig.from_json(text, "run.json")


def test_runs_that_differ_in_their_workers_alone_give_the_same() -> None:
    assert FULL.gives_the_same(replace(FULL, workers=0))
    assert not FULL.gives_the_same(replace(FULL, seed=0))
    assert FULL.gives_the_same(TrainConfig.from_json(FULL.to_json()))


def test_a_configuration_of_the_first_version_is_still_read() -> None:
    first = json.loads(RunConfig(seed=21, network="center_net").to_json())
    first |= {"phantom_seeds": [100, 101], "recipe": {"edge": 64, "kinds": [["scan", 0.5]], "inserted": 0.6}}
    del first["start_from"]
    assert TrainConfig.from_json(json.dumps(first)).phantom_seeds == (100, 101)
