from __future__ import annotations

import hashlib
import json

import pytest

from tests.models.zoo_bundles import write_zoo_bundle, zipped


@pytest.fixture
def bundle(tmp_path):
    write_zoo_bundle(tmp_path / "spleen_ct_segmentation", "spleen_ct_segmentation")
    return tmp_path / "spleen_ct_segmentation"


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """The folder of the user's models."""
    monkeypatch.setenv("TOMOLENS_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_a_bundle_is_imported_listed_shown_and_removed(tomolens, bundle, models):
    told = tomolens("models", "import", bundle)
    assert told.exit_code == 0
    assert "Imported spleen_ct_segmentation 0.3.7 (segmentation)" in told.stdout
    assert "not validated by the Tomolens project" in told.stdout
    assert [folder.name for folder in models.iterdir()] == ["spleen_ct_segmentation"]
    assert "spleen_ct_segmentation 0.3.7" in tomolens("models").stdout
    shown = " ".join(tomolens("models", "show", "spleen_ct_segmentation").stdout.split())
    assert "not validated by the Tomolens project" in shown
    assert "1 spleen" in shown
    assert "mean dice (the authors') 0.96" in shown
    card = json.loads(tomolens("models", "show", "spleen_ct_segmentation", "--json").stdout)
    assert card["labels"] == {"1": "spleen"}
    assert tomolens("models", "remove", "spleen_ct_segmentation").exit_code == 0
    assert not list(models.iterdir())
    assert tomolens("models", "remove", "spleen_ct_segmentation").exit_code == 2


def test_a_name_of_the_zoo_comes_from_a_mirror_with_its_hash_checked(tomolens, bundle, tmp_path, models):
    file = zipped(bundle, tmp_path / "spleen_ct_segmentation_v0.3.7.zip")
    entry = {"checksum": hashlib.sha1(file.read_bytes()).hexdigest(), "source": "https://example.org"}
    (tmp_path / "model_info.json").write_text(json.dumps({"spleen_ct_segmentation_v0.3.7": entry}))
    told = tomolens("models", "import", "spleen_ct_segmentation", "--mirror", tmp_path, "--name", "spleen")
    assert told.exit_code == 0
    assert (models / "spleen" / "models" / "model.safetensors").is_file()


def test_a_model_is_not_put_over_another_of_its_name(tomolens, bundle, models):
    assert tomolens("models", "import", bundle).exit_code == 0
    told = tomolens("models", "import", bundle)
    assert told.exit_code == 2
    assert "already" in told.stderr
    assert tomolens("models", "import", bundle, "--name", "other").exit_code == 0
    assert sorted(folder.name for folder in models.iterdir()) == ["other", "spleen_ct_segmentation"]


def test_a_refused_bundle_leaves_nothing_and_says_the_key(tomolens, tmp_path, models):
    def spoil(card, config):
        config["inferer"]["_target_"] = "scripts.Mine"

    write_zoo_bundle(tmp_path / "spoilt", "spleen_ct_segmentation", spoil)
    told = tomolens("models", "import", tmp_path / "spoilt")
    assert told.exit_code == 2
    assert "inference.json: inferer: scripts.Mine" in told.stderr
    assert not models.exists() or not list(models.iterdir())


def test_a_model_goes_where_it_is_told_and_is_found_there(tomolens, bundle, tmp_path):
    there = tmp_path / "elsewhere"
    assert tomolens("models", "import", bundle, "--models-folder", there).exit_code == 0
    assert "spleen_ct_segmentation" in tomolens("models", "list", "--models-folder", there).stdout
    assert tomolens("models", "show", "spleen_ct_segmentation").exit_code == 2


def test_a_broken_model_of_the_user_is_told_and_keeps_no_other_from_working(tomolens, bundle, models):
    tomolens("models", "import", bundle)
    (models / "broken" / "configs").mkdir(parents=True)
    (models / "broken" / "configs" / "metadata.json").write_text("{")
    told = tomolens("models", "list")
    assert "spleen_ct_segmentation" in told.stdout
    assert "lung-nodule-centernet" in told.stdout
    assert "broken" in told.stderr
    assert "is not JSON" in tomolens("models", "show", "broken").stderr
    assert tomolens("models", "remove", "broken").exit_code == 0


def test_a_shipped_model_is_neither_removed_nor_replaced(tomolens, bundle):
    assert tomolens("models", "remove", "lung-nodule-centernet").exit_code == 2
    assert tomolens("models", "import", bundle, "--name", "lung-nodule-centernet").exit_code == 2
