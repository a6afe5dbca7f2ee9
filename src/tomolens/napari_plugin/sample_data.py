"""File > Open Sample > Tomolens: the generated phantoms, which show no patient."""

from __future__ import annotations

from tomolens.napari_plugin import layers
from tomolens.napari_plugin.messages import viewer_at_hand


def chest_ct() -> list[layers.LayerData]:
    """A chest CT with nodules of known place and size."""
    from tomolens.phantoms.chest import sample_chest_ct

    viewer_at_hand()
    return [_named(layers.image(sample_chest_ct()), "Chest CT phantom")]


def brain_mr() -> list[layers.LayerData]:
    """A brain-like MR volume."""
    from tomolens.phantoms.brain import sample_brain_mr

    viewer_at_hand()
    return [_named(layers.image(sample_brain_mr()), "Brain MR phantom")]


def _named(layer: layers.LayerData, name: str) -> layers.LayerData:
    data, attributes, kind = layer
    return data, {**attributes, "name": name}, kind
