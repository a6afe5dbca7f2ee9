"""The GANs that are shipped: what they promise beside the networks that they were trained from."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.models.test_ct_denoiser import KERNELS, SOFT, STRENGTH_HU, anatomy, disc, scan
from tests.models.test_thin_slices_model import of_ct, organs
from tomolens.core.errors import OptionError
from tomolens.core.progress import silent
from tomolens.core.reconstruction import GENERATIVE, ReconstructOptions
from tomolens.models.reconstructor import load_reconstructor
from tomolens.physics.slices import thick
from tomolens.pipelines.reconstruct import reconstruct

GANS = ("ct-denoiser-gan", "thin-slices-gan")


@cache
def denoised(name: str, kernel: str, wounded: bool = False) -> np.ndarray:
    image = anatomy() + disc(56, 24, 8.0, -60.0) if wounded else anatomy()
    model = load_reconstructor(name, device="cpu")
    return model.reconstruct(scan(image, kernel), ReconstructOptions(uncertainty=False), silent).image[1]


@pytest.mark.parametrize("name", GANS)
def test_a_gan_runs_only_where_it_is_accepted_and_its_result_says_what_it_is(name: str) -> None:
    source = scan(anatomy(), "sharp") if name.startswith("ct") else thick(of_ct(organs(3)), 3)
    options = {} if name.startswith("ct") else {"factor": 3}
    model = load_reconstructor(name, device="cpu")
    assert model.card.generative
    with pytest.raises(OptionError, match="GAN"):
        reconstruct(source, model, ReconstructOptions(**options))
    made = reconstruct(source, model, ReconstructOptions(**options, generative=True))
    assert any(GENERATIVE in warning for warning in made.warnings)
    assert GENERATIVE in made.volume.history[-1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_its_noise_is_nearer_to_that_of_the_full_dose_and_its_mean_stays(kernel: str) -> None:
    """At a full dose the noise would be half as strong."""
    cnn, gan = (denoised(name, kernel)[SOFT] for name in ("ct-denoiser", "ct-denoiser-gan"))
    full = STRENGTH_HU / 2
    assert abs(gan.std() - full) < abs(cnn.std() - full)
    assert gan.std() < 1.2 * full
    assert gan.mean() == pytest.approx(anatomy()[1][SOFT].mean(), abs=3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lesion_keeps_as_much_of_its_contrast_as_in_the_network_it_came_from(kernel: str) -> None:
    core = np.abs(disc(56, 24, 8.0, -60.0)) > 54
    kept = [
        float((denoised(name, kernel, True) - denoised(name, kernel))[core].mean() / -60)
        for name in ("ct-denoiser", "ct-denoiser-gan")
    ]
    assert kept[1] > kept[0] - 0.03


def test_its_thin_slices_still_have_the_measured_ones_as_their_mean() -> None:
    slab = thick(of_ct(organs(5)), 4)
    made = load_reconstructor("thin-slices-gan", device="cpu").reconstruct(slab, ReconstructOptions(factor=4), silent)
    assert made.checks[0].name == "difference from the measured slices"
    assert made.checks[0].value < 0.001
