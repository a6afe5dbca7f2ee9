"""Methods without training take noise off and keep means; one that is not installed says so."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from tests.physics.test_noise import MIDDLE, drawn, water
from tomolens.core.errors import OptionError
from tomolens.physics.denoise import bm3d, nlm, tv


@pytest.mark.parametrize("method", [nlm, tv])
@pytest.mark.parametrize("strength", [10.0, 60.0])
def test_noise_of_any_strength_is_taken_down_and_the_mean_stays(method, strength: float) -> None:
    noise = np.full((192, 192), strength, np.float32)
    cleaned = method(water(strength * drawn(MIDDLE)), noise)
    assert (cleaned - water()).std() < 0.6 * strength
    assert cleaned.mean() == pytest.approx(30, abs=0.5)


@pytest.mark.skipif(find_spec("bm3d") is not None, reason="it is installed")
def test_bm3d_that_is_absent_is_said_with_how_to_get_it() -> None:
    with pytest.raises(OptionError, match=r"bm3d is not installed; .* pip install"):
        bm3d(water(), water())
