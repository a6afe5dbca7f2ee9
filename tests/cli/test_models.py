from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tomolens.core.reconstruction import GENERATIVE, Job
from tomolens.testing import FAKE_CARD, FAKE_DENOISING_CARD

CARD = replace(
    FAKE_CARD,
    name="lung-nodule-centernet",
    figures={"sensitivity_at_1_fp": 0.5, "scans": 3, "open_ct": {"first_rank_mm": 0.75, "false_positives": [1, 2]}},
)


NETWORK = replace(FAKE_DENOISING_CARD, name="ct-unet", ranges={"noise_hu": (5.0, 80.0)}, licence="Apache-2.0")
GAN = replace(FAKE_DENOISING_CARD, name="ct-gan", generative=True)
METHOD = replace(FAKE_DENOISING_CARD, name="tv", licence="BSD-3-Clause", trained_on="Nothing: no training.")


NONE: dict[Job, dict] = {job: {} for job in Job}


@pytest.fixture(autouse=True)
def _two_models(monkeypatch):
    monkeypatch.setattr("tomolens.models.registry.list_models", lambda folder=None: (CARD, FAKE_CARD))
    monkeypatch.setattr("tomolens.models.reconstructor.METHODS", NONE)


@pytest.fixture
def _models_that_reconstruct(monkeypatch):
    monkeypatch.setattr("tomolens.models.registry.list_models", lambda folder=None: (GAN, CARD, NETWORK))
    monkeypatch.setattr("tomolens.models.reconstructor.METHODS", NONE | {Job.DENOISING: {"tv": METHOD}})


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


@pytest.mark.usefixtures("_models_that_reconstruct")
def test_what_reconstructs_stands_by_its_job_the_default_first_and_gans_last(tomolens):
    told = tomolens("models").stdout
    order = ["lung-nodule-centernet", "tomolens reconstruct --job ct-denoising", "ct-unet 0", "tv 0", "ct-gan 0"]
    places = [told.index(name) for name in order]
    assert places == sorted(places)
    assert GENERATIVE in told
    assert "BSD-3-Clause" in told
    assert [card["name"] for card in json.loads(tomolens("models", "--json").stdout)][1:] == ["ct-unet", "tv", "ct-gan"]


@pytest.mark.usefixtures("_models_that_reconstruct")
def test_a_method_without_training_is_shown_too_and_has_no_folder(tomolens):
    told = tomolens("models", "show", "tv").stdout
    assert "Nothing: no training." in told
    assert "none: a method without weights" in told
    assert json.loads(tomolens("models", "show", "tv", "--json").stdout)["name"] == "tv"
    assert tomolens("models", "show", "nobody").exit_code == 2


@pytest.mark.usefixtures("_models_that_reconstruct")
def test_a_name_that_nobody_has_is_refused_with_all_that_there_are(tomolens):
    refused = tomolens("models", "show", "nobody")
    assert refused.exit_code == 2
    assert "Methods without training: tv." in refused.stderr


def test_what_a_model_takes_is_said_without_a_bound_that_is_none(tomolens, monkeypatch):
    raw = replace(METHOD, name="raw", task=Job.MRI)
    monkeypatch.setattr("tomolens.models.reconstructor.METHODS", NONE | {Job.MRI: {"raw": raw}})
    assert "k-space of Cartesian MR slices" in tomolens("models", "show", "raw").stdout
    wide = replace(METHOD, input=replace(METHOD.input, min_extent_mm=0.0))
    monkeypatch.setattr("tomolens.models.reconstructor.METHODS", NONE | {Job.DENOISING: {"tv": wide}})
    assert "at least" not in tomolens("models", "show", "tv").stdout
