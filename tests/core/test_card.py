from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tomolens.core.card import InputContract, ModelCard
from tomolens.core.errors import ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.series import Series
from tomolens.core.volume import Unit, Volume

CONTRACT = InputContract(modality="CT", unit=Unit.HU, max_spacing_mm=3.0, min_extent_mm=64.0)
SERIES = Series("1.2", "1.1", "CT", (), (40, 80, 80), (2, 1, 1), description="CHEST 2.0")
CHEST = Volume(np.zeros((40, 80, 80), np.int16), Grid.from_axes((40, 80, 80), (2.0, 1.0, 1.0)), series=SERIES)
METADATA = {
    "version": "0.1.0",
    "description": "Finds nodules.",
    "intended_use": "Research.",
    "data_source": "LIDC-IDRI",
    "tomolens": {
        "name": "nodules",
        "task": "detection",
        "licence": "Apache-2.0",
        "input": {"modality": "CT", "unit": "HU", "max_spacing_mm": 3.0, "min_extent_mm": 64},
        "default_min_score": 0.5,
        "network": "center_net",
        "settings": {"channels": [32, 64]},
        "figures": {"sensitivity_at_1_fp": 0.7},
    },
}


def test_a_volume_that_fits_is_accepted() -> None:
    assert CONTRACT.refusals(CHEST) == ()
    CONTRACT.check(CHEST)


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (replace(CHEST, modality="MR"), "it is MR, the model takes CT"),
        (replace(CHEST, unit=Unit.ARBITRARY), "its unit is a.u., the model takes HU"),
        (replace(CHEST, grid=Grid.from_axes((40, 80, 80), (5.0, 1.0, 1.0))), "its spacing is 5.00 mm, at most 3 mm"),
        (CHEST.cropped((0, 0, 0), (31, 80, 80)), "it covers 62 mm, at least 64 mm are needed"),
    ],
)
def test_a_volume_that_does_not_fit_is_refused_with_what_differs_and_what_would_do(volume: Volume, reason: str) -> None:
    assert len(CONTRACT.refusals(volume)) == 1
    with pytest.raises(ContractError, match=f"CHEST 2.0 .*{reason}"):
        CONTRACT.check(volume)


def test_every_reason_is_named_at_once() -> None:
    tiny_mr = Volume(np.zeros((2, 2, 2), np.int16), Grid.from_axes((2, 2, 2)), Unit.ARBITRARY, "MR")
    assert len(CONTRACT.refusals(tiny_mr)) == 3


def test_a_card_is_read_from_metadata() -> None:
    card = ModelCard.from_metadata(METADATA)
    assert card.name == "nodules"
    assert card.input == CONTRACT
    assert card.figures["sensitivity_at_1_fp"] == 0.7
    assert card.trained_on == "LIDC-IDRI"


@pytest.mark.parametrize("key", ["version", "description", "tomolens", "name", "input", "default_min_score", "figures"])
def test_metadata_that_lacks_a_key_are_refused_and_the_key_and_the_file_named(key: str) -> None:
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    (metadata if key in metadata else metadata["tomolens"]).pop(key)
    with pytest.raises(ModelError, match=f"my_model/metadata.json lacks the key '{key}'"):
        ModelCard.from_metadata(metadata, "my_model/metadata.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [("unit", "SUV"), ("max_spacing_m", 3.0), ("unit", None)],
)
def test_metadata_with_a_contract_that_means_nothing_are_refused(key: str, value: Any) -> None:
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    metadata["tomolens"]["input"][key] = value
    with pytest.raises(ModelError, match="cannot be understood"):
        ModelCard.from_metadata(metadata)


def test_a_threshold_that_is_no_number_is_refused() -> None:
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    metadata["tomolens"]["default_min_score"] = "high"
    with pytest.raises(ModelError, match="high"):
        ModelCard.from_metadata(metadata)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_voxel_that_is_no_number_is_refused_and_not_read_around(wrong: float) -> None:
    voxels = np.zeros(CHEST.shape, np.float32)
    CONTRACT.check(replace(CHEST, voxels=voxels.copy()))
    voxels[3, 4, 5] = wrong
    with pytest.raises(ContractError, match="no number"):
        CONTRACT.check(replace(CHEST, voxels=voxels))


def test_a_model_may_take_several_modalities_in_any_unit() -> None:
    metadata: dict[str, Any] = copy.deepcopy(METADATA)
    metadata["tomolens"]["input"] |= {"modality": "CT or MR", "unit": "any"}
    contract = ModelCard.from_metadata(metadata).input
    assert contract.modalities == ("CT", "MR")
    assert contract.unit is None
