from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tomolens.testing import FAKE_CARD

CARD = replace(
    FAKE_CARD,
    name="lung-nodule-centernet",
    figures={"sensitivity_at_1_fp": 0.5, "scans": 3, "open_ct": {"first_rank_mm": 0.75, "false_positives": [1, 2]}},
)


@pytest.fixture(autouse=True)
def _two_models(monkeypatch):
    monkeypatch.setattr("tomolens.models.registry.list_models", lambda folder=None: (CARD, FAKE_CARD))


def test_each_model_is_shown_with_what_it_takes_its_licence_and_its_figures(tomolens):
    told = tomolens("models").stdout
    assert "lung-nodule-centernet 0.0.0 (default)" in told
    assert "fake 0.0.0" in told
    assert told.count("(default)") == 1
    assert "CT in HU, voxels of at most 6 mm" in told
    assert "Apache-2.0" in told
    assert "sensitivity at 1 fp" in told
    assert "first rank mm 0.75, false positives 1, 2" in told


def test_the_json_holds_the_whole_card(tomolens):
    first, second = json.loads(tomolens("models", "--json").stdout)
    assert (first["default"], second["default"]) == (True, False)
    assert first["figures"] == CARD.figures
    assert first["input"] == {
        "modality": "CT",
        "unit": "HU",
        "max_spacing_mm": 6.0,
        "min_extent_mm": 8.0,
        "channels": ["image"],
    }
