"""The network architectures, built from MONAI blocks: one function each, found by name in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution, FeaturePyramidNetwork, ResidualUnit
from monai.networks.nets import ResNet
from monai.networks.utils import pixelunshuffle
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tomolens.core.errors import ModelError
from tomolens.models.cascade import CascadedSense
from tomolens.models.monai_networks import PREFIX, monai_network
from tomolens.models.retina_net import retina_net
from tomolens.models.slice_denoiser import SliceDenoiser
from tomolens.models.slice_network import SliceNet
from tomolens.models.varnet import var_net

CELL_MM = 4.0
"""Edge of one output cell; the network's input has 1 mm voxels."""
DEEPEST_STRIDE = 16
"""Input sizes are padded to multiples of this."""
PRIOR_LOGIT = -4.0
"""Logit of an untrained head (score 0.018), so that training does not start by unlearning a million positives."""


class CenterNet(nn.Module):
    """One pass over a chest: for each 4 mm cell a nodule logit, the offset to its centre and its diameter.

    Space-to-depth to 2 mm, four residual stages (2, 4, 8, 16 mm), a feature pyramid back to 4 mm and a convolutional
    head. Centres as in Zhou et al., Objects as Points, 2019 (arXiv:1904.07850).

    Input (n, 1, k, j, i), sizes multiples of 16. Output (n, 5, k/4, j/4, i/4): logit; offset (k, j, i) from the cell's
    centre in cells; natural logarithm of the diameter in cells.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 96, 128), pyramid: int = 64) -> None:
        super().__init__()
        first, *deeper = channels
        self.stem = nn.Sequential(_conv(8, first), _residual(first, first))
        stages, width = [], first
        for channel in deeper:
            stages.append(nn.Sequential(_residual(width, channel, strides=2), _residual(channel, channel)))
            width = channel
        self.stages = nn.ModuleList(stages)
        self.pyramid = FeaturePyramidNetwork(3, list(deeper), pyramid)
        for unread in range(1, len(deeper)):
            self.pyramid.layer_blocks[unread] = nn.Identity()
        answer = nn.Conv3d(pyramid, 5, 1)
        answer.bias = nn.Parameter(torch.tensor([PRIOR_LOGIT, 0.0, 0.0, 0.0, 0.0]))
        self.head = nn.Sequential(_conv(pyramid, pyramid), answer)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self.stem(pixelunshuffle(image, 3, 2))
        levels = {}
        for depth, stage in enumerate(self.stages):
            features = stage(features)
            levels[str(depth)] = features
        output: torch.Tensor = self.head(self.pyramid(levels)["0"])
        return output


def nodule_cnn_3d(channels: Sequence[int] = (24, 48, 96, 128)) -> nn.Module:
    """A small 3D residual network for 48 mm around a place: (n, 1, 48, 48, 48) to (n, 5), as `classifier` reads it."""
    return _resnet(channels, spatial_dims=3, n_input_channels=1)


class NoduleViews(nn.Module):
    """The 2.5D alternative: one 2D residual network looks at the axial, coronal and sagittal view of a place.

    Each view is three slices 2 mm apart, as channels; the answers of the views are averaged. Shapes as of
    `nodule_cnn_3d`.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 192)) -> None:
        super().__init__()
        self.network = _resnet(channels, spatial_dims=2, n_input_channels=3)

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        """See the class."""
        middle = patch.shape[-1] // 2
        slices = torch.tensor([middle - 2, middle, middle + 2], device=patch.device)
        views = [patch[:, 0].index_select(axis, slices).movedim(axis, 1) for axis in (1, 2, 3)]
        answers = self.network(torch.cat(views)).unflatten(0, (3, -1))
        return torch.as_tensor(answers.mean(dim=0))


def _resnet(channels: Sequence[int], **size: int) -> nn.Module:
    network: nn.Module = ResNet(
        "basic",
        [1, 1, 1, 1],
        list(channels),
        conv1_t_size=5,
        conv1_t_stride=2,
        no_max_pool=True,
        num_classes=5,
        **size,
    )
    return network


def _conv(inward: int, outward: int) -> nn.Module:
    block: nn.Module = Convolution(3, inward, outward, act="RELU", norm="BATCH", adn_ordering="NA", bias=False)
    return block


def _residual(inward: int, outward: int, strides: int = 1) -> nn.Module:
    block: nn.Module = ResidualUnit(
        3, inward, outward, strides=strides, act="RELU", norm="BATCH", adn_ordering="NA", bias=False
    )
    return block


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "center_net": CenterNet,
    "nodule_cnn_3d": nodule_cnn_3d,
    "nodule_views_25d": NoduleViews,
    "retina_net": retina_net,
    "slice_net": SliceNet,
    "cascaded_sense": CascadedSense,
    "var_net": var_net,
    "slice_denoiser": SliceDenoiser,
}


def build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """The network of that name with untrained weights.

    Raises
    ------
    ModelError
        If the name is unknown or the settings do not fit.
    """
    if name.startswith(PREFIX):
        return monai_network(name.removeprefix(PREFIX), settings)
    if name not in NETWORKS:
        raise ModelError(f"There is no network {name!r}; known are {', '.join(sorted(NETWORKS))}.")
    try:
        return NETWORKS[name](**settings)
    except ModelError:
        raise
    except Exception as wrong:  # whatever a constructor makes of settings that somebody else wrote
        raise ModelError(f"Network {name!r} cannot be built with {dict(settings)}: {wrong}.") from wrong


def folded(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it, in place; for inference (about a fifth faster).

    `torch.nn.SyncBatchNorm`, which a team on GPUs trains with, is folded as the plain one is.
    """
    network.eval()
    for block in network.modules():
        norm = getattr(getattr(block, "adn", None), "N", None)
        if isinstance(block, Convolution) and isinstance(norm, nn.BatchNorm3d | nn.SyncBatchNorm):
            block.conv = fuse_conv_bn_eval(block.conv, block.adn.N)
            block.adn.N = nn.Identity()
    return network
