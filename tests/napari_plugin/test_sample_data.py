"""File > Open Sample > Tomolens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.napari_plugin.scans import scan
from tomolens.core.volume import Unit
from tomolens.napari_plugin import layers

pytestmark = pytest.mark.gui


def test_the_samples_open_as_scans_with_their_place(viewer, monkeypatch):
    monkeypatch.setattr("tomolens.phantoms.chest.sample_chest_ct", scan)  # the real ones take seconds to generate
    monkeypatch.setattr(
        "tomolens.phantoms.brain.sample_brain_mr", lambda: replace(scan(), modality="MR", unit=Unit.ARBITRARY)
    )
    (ct,) = viewer.open_sample("tomolens", "chest_ct")
    (mr,) = viewer.open_sample("tomolens", "brain_mr")
    assert (ct.name, mr.name) == ("Chest CT phantom", "Brain MR phantom")
    assert layers.volume_of(ct).unit is Unit.HU
    assert layers.volume_of(mr).modality == "MR"
    assert viewer.canvas.overlays["tomolens_left"].text == "R"
