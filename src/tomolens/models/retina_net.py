"""MONAI's RetinaNet over a ResNet with a feature pyramid, built without torchvision.

MONAI takes two helpers of torchvision for it: one walks a ResNet up to the layers that are read, the other says which
layers train. The first is `ResNetPyramid`; for inference the second has nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.networks.blocks import FeaturePyramidNetwork
from monai.networks.blocks.feature_pyramid_network import LastLevelMaxPool
from torch import nn

from tomolens.core.errors import ModelError
from tomolens.models.monai_networks import monai_network

PYRAMID_CHANNELS = 256
"""What MONAI's extractor is fixed to."""


class ResNetPyramid(nn.Module):
    """The feature maps of some of a ResNet's layers, through a feature pyramid, and one level more by pooling.

    The parts bear the names of MONAI's ``BackboneWithFPN`` (``body.layer1``, ``fpn``...), so its weights fit.
    """

    def __init__(self, backbone: nn.Module, spatial_dims: int, returned_layers: Sequence[int]) -> None:
        super().__init__()
        self._read = {f"layer{layer}": str(level) for level, layer in enumerate(returned_layers)}
        names = [name for name, _ in backbone.named_children()]
        last = max(names.index(name) for name in self._read)
        self.body = nn.ModuleDict({name: getattr(backbone, name) for name in names[: last + 1]})
        first = int(backbone.in_planes) // 8  # type: ignore[arg-type] # MONAI's ResNet: the channels of its last layer
        widths = [first * 2 ** (layer - 1) for layer in returned_layers]
        self.fpn = FeaturePyramidNetwork(spatial_dims, widths, PYRAMID_CHANNELS, LastLevelMaxPool(spatial_dims))
        self.out_channels = PYRAMID_CHANNELS

    def forward(self, image: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """See the class."""
        features, read = image, {}
        for name, part in self.body.items():
            features = part(features)
            if name in self._read:
                read[self._read[name]] = features
        maps: Mapping[str, torch.Tensor] = self.fpn(read)
        return maps


def retina_net(
    backbone: str,
    backbone_settings: Mapping[str, Any],
    returned_layers: Sequence[int],
    num_classes: int,
    num_anchors: int,
    size_divisible: Sequence[int],
) -> nn.Module:
    """A RetinaNet for volumes: (n, 1, a, b, c) to the scores and boxes of every anchor, by level.

    Raises
    ------
    ModelError
        If the backbone is no ResNet or the layers are not its own.
    """
    if "resnet" not in backbone.lower() or "se" in backbone.lower().replace("resnet", ""):
        raise ModelError(f"The detector's backbone is a ResNet, not {backbone!r}.")
    if not returned_layers or not all(1 <= layer <= 4 for layer in returned_layers):
        raise ModelError(f"A ResNet has the layers 1 to 4; returned_layers is {list(returned_layers)}.")
    body = monai_network(backbone, backbone_settings)
    network: nn.Module = RetinaNet(
        3, num_classes, num_anchors, ResNetPyramid(body, 3, sorted(returned_layers)), list(size_divisible)
    )
    return network
