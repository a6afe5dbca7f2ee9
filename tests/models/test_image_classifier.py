from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet
from monai.transforms import Compose, NormalizeIntensity, Resize

from tests.models.zoo_bundles import compose, step, write_zoo_bundle
from tomolens.core.errors import ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.models.image_classifier import load_image_classifier
from tomolens.models.import_bundle import Wish, import_bundle
from tomolens.models.prepare import prepared

VOLUME = Volume(
    np.random.default_rng(5).normal(0, 400, (24, 26, 28)).astype(np.int16), Grid.from_axes((24, 26, 28), (2, 2, 2))
)
SIGMOID = step("Activationsd", "pred", sigmoid=True)


def with_one_logit(tmp_path, names, *answer):
    """An imported classifier of one logit, and its authors' network."""
    torch.manual_seed(6)
    size = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "init_features": 8, "growth_rate": 4}
    network = DenseNet(**size, block_config=[1, 1]).eval()

    def change(card, config):
        config["network_def"]["out_channels"] = 1
        config["postprocessing"] = compose(*answer)
        card["network_data_format"]["outputs"]["pred"]["channel_def"] = names

    write_zoo_bundle(tmp_path / "theirs", "densenet_classification", change)
    torch.save(network.state_dict(), tmp_path / "theirs" / "models" / "model.pt")
    (tmp_path / "ours").mkdir()
    import_bundle(tmp_path / "theirs", tmp_path / "ours", Wish("one-logit"))
    return load_image_classifier(tmp_path / "ours", device="cpu"), network


@pytest.mark.parametrize("names", [{"0": "malignant"}, {"0": "benign", "1": "malignant"}, {}])
def test_one_logit_is_the_probability_of_the_second_of_two_classes_or_of_the_only_one(tmp_path, names):
    model, network = with_one_logit(tmp_path, names, SIGMOID, step("AsDiscreted", "pred", threshold=0.5))
    with torch.no_grad():
        truth = float(network(prepared([VOLUME], model._recipe.steps).channels[None]).sigmoid())
    found = model.classify(VOLUME)
    assert abs(truth - 0.5) > 0.01
    assert list(found) == (list(names.values()) or ["class 0"])
    assert list(found.values())[-1] == pytest.approx(truth, abs=1e-6)
    assert len(found) == 1 or found["benign"] == pytest.approx(1 - truth, abs=1e-6)


@pytest.mark.parametrize(
    ("names", "answer", "message"),
    [
        (
            {"0": "malignant"},
            (step("Activationsd", "pred", softmax=True),),
            "softmax over a single channel is always 1",
        ),
        ({"0": "malignant"}, (step("AsDiscreted", "pred", argmax=True),), "argmax over a single channel is always 0"),
        ({"0": "malignant"}, (), "no sigmoid or threshold says how it becomes a probability"),
        ({"0": "a", "1": "b", "2": "c"}, (SIGMOID,), "channel_def names .*; the network answers for 1 classes"),
    ],
)
def test_one_logit_that_no_rule_turns_into_a_probability_is_refused(tmp_path, names, answer, message):
    with pytest.raises(ModelError, match=message):
        with_one_logit(tmp_path, names, *answer)


def test_a_picture_is_classified_as_monais_own_transforms_and_network_classify_it(tmp_path):
    network = write_zoo_bundle(tmp_path / "theirs", "endoscopic_inbody_classification")
    (tmp_path / "ours").mkdir()
    import_bundle(tmp_path / "theirs", tmp_path / "ours", Wish(modality="ES"))
    draw = np.random.default_rng(0).integers(0, 255, (3, 1, 50, 60)).astype(np.int16)
    pictures = [Volume(colour, Grid.from_axes((1, 50, 60)), Unit.ARBITRARY, "ES") for colour in draw]
    found = load_image_classifier(tmp_path / "ours", device="cpu").classify(pictures)
    read = Compose([Resize([32, 32], mode="bilinear"), NormalizeIntensity(nonzero=True, channel_wise=True)])
    with torch.no_grad():
        truth = network(read(torch.from_numpy(draw[:, 0].astype(np.float32).transpose(0, 2, 1)))[None])[0].softmax(
            dim=0
        )
    assert list(found) == ["in body", "out body"]
    assert list(found.values()) == pytest.approx(truth.tolist(), abs=1e-5)
