"""The network that makes thin slices of thick ones, plane by plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional

FACTORS = (2, 3, 4, 5)
"""Thin slices of one thick slice; a head for each."""
STRIDE = 2
"""Pixels along a slice that share one place in the network, as channels."""
_DIFFERENCES = 3
_LEAST_SIGMA = 0.01


class SliceNet(nn.Module):
    """What the cubic spline with back-projection leaves out, seen in one plane that holds the slice axis.

    Works at the thick slices' resolution: differences to the neighbours, pixels paired into channels, residual blocks
    without norms, and for each factor a head that gives the thin slices as channels. It sees differences alone and has
    no biases, so that an offset of the image changes nothing and a multiple of it gives the same multiple (as in Mohan
    et al., 2020, arXiv:1906.05478): one network serves HU and the arbitrary units of MR. What it adds sums to zero over
    each thick slice, so the measured slices are kept. Untrained it adds nothing.

    Parameters
    ----------
    channels, blocks
        Width, and residual blocks of two convolutions.
    sigma_scale
        What the standard deviation of each factor's head is multiplied by, so that it is honest on held-out images.

    Input ``image`` (n, 1, k, i) thick slices, in any unit of which 1 is a usual difference between slices; ``setting``
    (n, 2) as `setting_of`. Output (n, 2 * factor, k, i): what is added to each thin slice, then its standard deviation;
    without ``factor`` the answers of all heads after one another, 2 to 5.
    """

    inputs = ("image", "setting")

    def __init__(self, channels: int = 32, blocks: int = 6, sigma_scale: Sequence[float] = (1.0,) * 4) -> None:
        super().__init__()
        self.sigma_scale = tuple(sigma_scale)
        self.stem = _conv(_DIFFERENCES * STRIDE, channels)
        self.blocks = nn.ModuleList(_Block(channels) for _ in range(blocks))
        self.heads = nn.ModuleList(nn.Conv2d(channels, STRIDE * factor, 3, padding=1, bias=False) for factor in FACTORS)
        self.sure = _conv(channels, channels // 2, act="RELU")
        self.sigmas = nn.ModuleList(nn.Conv2d(channels // 2, STRIDE * factor, 1, bias=False) for factor in FACTORS)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor, setting: torch.Tensor, factor: int | None = None) -> torch.Tensor:
        """See the class."""
        width = image.shape[-1]
        paired = _paired(_differences(functional.pad(image, (0, -width % STRIDE, 0, 0), "replicate")))
        features = self.stem(paired)
        for block in self.blocks:
            features = block(features, setting)
        doubt = self.sure(features.detach().abs())
        wanted = FACTORS if factor is None else (factor,)
        answers = [self._answer(FACTORS.index(one), features, doubt)[..., :width] for one in wanted]
        return torch.cat(answers, dim=1)

    def _answer(self, index: int, features: torch.Tensor, doubt: torch.Tensor) -> torch.Tensor:
        added = _unpaired(self.heads[index](features))
        sigma = _unpaired(self.sigmas[index](doubt)).abs() + _LEAST_SIGMA
        return torch.cat([added - added.mean(dim=1, keepdim=True), sigma * self.sigma_scale[index]], dim=1)


def setting_of(factor: int, thick_mm: float, pixel_mm: float) -> tuple[float, float]:
    """What a network is told of a plane: the factor, and how many times as far apart slices are as pixels."""
    return factor / FACTORS[-1], min(thick_mm / pixel_mm, 10.0) / 10.0


def offsets_of(factor: int) -> int:
    """Where in the answer of all heads that of a factor begins."""
    return 2 * sum(FACTORS[: FACTORS.index(factor)])


class _Block(nn.Module):
    """A residual block whose inner features are weighed by the setting."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inward, self.outward = _conv(channels, channels, act="RELU"), _conv(channels, channels)
        self.gain = nn.Linear(2, channels)
        nn.init.zeros_(self.gain.weight)
        nn.init.constant_(self.gain.bias, 1.0)

    def forward(self, features: torch.Tensor, setting: torch.Tensor) -> torch.Tensor:
        """Features (n, channels, k, i / 2) and setting (n, 2) to features."""
        result: torch.Tensor = features + self.outward(self.inward(features) * self.gain(setting)[:, :, None, None])
        return result


def _conv(inward: int, outward: int, act: str | None = None) -> nn.Module:
    block: nn.Module = Convolution(
        2, inward, outward, adn_ordering="A", act=act, norm=None, bias=False, conv_only=act is None
    )
    return block


def _differences(image: torch.Tensor) -> torch.Tensor:
    """(n, 1, k, i) to (n, 3, k, i): to the next slice, from the last one, to the next pixel; 0 beyond the edge."""
    along = functional.pad(image.diff(dim=2), (0, 0, 1, 1))
    return torch.cat([along[:, :, 1:], along[:, :, :-1], functional.pad(image.diff(dim=3), (0, 1))], dim=1)


def _paired(image: torch.Tensor) -> torch.Tensor:
    """(n, c, k, i) to (n, c * 2, k, i / 2): neighbours along a slice become channels."""
    n, c, k, i = image.shape
    return image.reshape(n, c, k, i // STRIDE, STRIDE).permute(0, 1, 4, 2, 3).reshape(n, c * STRIDE, k, i // STRIDE)


def _unpaired(image: torch.Tensor) -> torch.Tensor:
    """Undoes `_paired`."""
    n, c, k, i = image.shape
    apart = image.reshape(n, c // STRIDE, STRIDE, k, i).permute(0, 1, 3, 4, 2)
    return apart.reshape(n, c // STRIDE, k, i * STRIDE)
