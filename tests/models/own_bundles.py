"""Model folders in our own layout with untrained weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tomolens.models.networks import build

UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


def metadata(name: str = "tiny", **ours: Any) -> dict[str, Any]:
    """A card of a segmentation model; ``ours`` replaces keys of its tomolens section."""
    return {
        "version": "0.1",
        "description": "Two structures",
        "intended_use": "tests",
        "data_source": "nothing",
        "tomolens": {
            "name": name,
            "task": "segmentation",
            "licence": "Apache-2.0",
            "input": {"modality": "CT", "unit": "HU", "max_spacing_mm": 6, "min_extent_mm": 8},
            "default_min_score": 0.5,
            "network": "monai.UNet",
            "settings": UNET,
            "labels": {"1": "spleen", "2": "liver"},
            "recipe": {
                "steps": [{"do": "orient", "axcodes": "RAS"}, {"do": "space", "pixdim": [2, 2, 3]}],
                "windows": {"roi_size": [16, 16, 16], "overlap": 0.5, "mode": "gaussian"},
            },
            "figures": {},
            **ours,
        },
    }


def write_bundle(folder: Path, card: dict[str, Any]) -> Path:
    """The folder with that card and weights drawn from a fixed seed."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(card))
    torch.manual_seed(0)
    network = build(card["tomolens"]["network"], card["tomolens"]["settings"])
    save_file(network.state_dict(), folder / "models" / "model.safetensors")
    return folder
