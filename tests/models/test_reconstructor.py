from __future__ import annotations

from dataclasses import replace

import pytest

from tomolens.core.errors import ModelError, OptionError
from tomolens.core.reconstruction import Job
from tomolens.models.reconstructor import baseline_of, classical_cards, load_reconstructor, reconstruction_models
from tomolens.testing import FAKE_CARD, FAKE_DENOISING_CARD

NETWORK = replace(FAKE_DENOISING_CARD, name="network")
EXPERIMENT = replace(FAKE_DENOISING_CARD, name="experiment", experimental=True)
GAN = replace(FAKE_DENOISING_CARD, name="gan", generative=True)


def test_what_is_experimental_or_a_gan_is_never_the_default():
    names = [card.name for card in reconstruction_models(Job.DENOISING, (GAN, EXPERIMENT, FAKE_CARD, NETWORK))]
    assert names == ["network", *classical_cards(Job.DENOISING), "experiment", "gan"]
    assert reconstruction_models(Job.DENOISING, (GAN, EXPERIMENT))[0].name == baseline_of(Job.DENOISING)


@pytest.mark.parametrize("job", Job)
def test_every_job_has_a_method_without_training_that_loads(job: Job):
    for name, card in classical_cards(job).items():
        assert load_reconstructor(name).card == card
        assert card.task == job


def test_a_model_that_reconstructs_nothing_is_refused_with_what_does():
    with pytest.raises(ModelError, match="a model for ct-denoising"):
        load_reconstructor("lung-nodule-centernet")


@pytest.mark.parametrize("name", ["tv-sense", "mri-unrolled"])
def test_a_device_that_is_none_is_refused_for_a_method_without_training_too(name: str):
    with pytest.raises(OptionError, match="no device 'gpu'"):
        load_reconstructor(name, device="gpu")
