"""The network that takes noise out of CT slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from monai.networks.utils import pixelunshuffle
from torch import nn
from torch.nn import functional

SLICES = 3
"""A slice and its two neighbours."""
DEEPEST_STRIDE = 8
_POOL = 4
_REACH = 4
_CONTRAST = 8.0
_HU = 1000.0
_USUAL_NOISE_HU = 20.0
_TIMES = 4
"""More part what is kept from what is taken off more sharply: at the same contrast of lesions less noise is kept."""


class SliceDenoiser(nn.Module):
    """A residual U-Net without norms over a slice and its two neighbours, with a map of the noise beside them.

    Contrasts to the surroundings are given in units of the noise, and what is taken off is made in them: 10 and 100 HU
    of noise look alike. No norm is kept, since its statistics would depend on what else lies in the image. The map of
    uncertainty is read from the same features, through which it teaches nothing: asking for it changes no image.

    Input: (n, 3, row, column) HU, the slice in the middle, and (n, 1, row, column), the standard deviation of its noise
    in HU; of any size. Output: (n, 2, row, column): the slice without noise in HU; its standard deviation in HU.

    Parameters
    ----------
    channels
        Of the stages at 2, 4 and 8 pixels.
    uncertainty_factor
        The standard deviation is multiplied by it; fitted after training on images that were not shown.
    kept_px
        What varies slowly is left as it was measured: noise of filtered back-projection has hardly any of it, and means
        and contrasts lie there. Of what is to be taken off, a Gaussian of this standard deviation is taken out four
        times over: of a wave of 0.3 / kept_px cycles a pixel half is taken off, of slower ones less. All is taken off
        where 0, and while the network is trained, for it would learn to undo it.
    """

    inputs = ("image", "sigma")

    def __init__(
        self, channels: Sequence[int] = (32, 64, 96), uncertainty_factor: float = 1.0, kept_px: float = 0.0
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.uncertainty_factor, self.kept_px = uncertainty_factor, kept_px
        self.stem = _conv(4 * (SLICES + 2), first)
        self.fine = _residual(first)
        self.middle = nn.Sequential(_conv(first, second, 2), _residual(second), _residual(second))
        self.coarse = nn.Sequential(_conv(second, third, 2), _residual(third), _residual(third))
        self.to_middle, self.to_fine = _up(third, second), _up(second, first)
        self.middle_again = _residual(second)
        self.fine_again = nn.Sequential(_residual(first), _residual(first))
        self.change, self.doubt = _zero(first), _zero(first)

    def forward(self, image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See the class."""
        rows, columns = image.shape[-2:]
        room = (0, -columns % DEEPEST_STRIDE, 0, -rows % DEEPEST_STRIDE)
        image, sigma = (functional.pad(part, room, mode="replicate") for part in (image, sigma))
        features = self._features(pixelunshuffle(_seen(image, sigma), 2, 2))
        slice_hu = image[:, SLICES // 2 : SLICES // 2 + 1]
        change = functional.pixel_shuffle(self.change(features), 2)
        doubt = functional.pixel_shuffle(self.doubt(features.detach()), 2).clamp(-6, 3)
        noise = fast(sigma * change.float(), 0.0 if self.training else self.kept_px)
        answer = torch.cat([slice_hu - noise, sigma * doubt.exp() * self.uncertainty_factor], dim=1)
        return answer[..., :rows, :columns].float()

    def _features(self, seen: torch.Tensor) -> torch.Tensor:
        fine = self.fine(self.stem(seen))
        middle = self.middle(fine)
        middle = self.middle_again(middle + self.to_middle(self.coarse(middle)))
        features: torch.Tensor = self.fine_again(fine + self.to_fine(middle))
        return features


def fast(image: torch.Tensor, kept_px: float) -> torch.Tensor:
    """What varies over a few ``kept_px`` at most, of (n, 1, row, column); in float32, for means must be exact."""
    if not kept_px:
        return image
    kernel = gaussian_1d(torch.tensor(kept_px), truncated=3.0, normalize=True)
    with torch.autocast(image.device.type, enabled=False):
        for _ in range(_TIMES):
            image = image - separable_filtering(image, [kernel, kernel], mode="replicate")
    return image


def _seen(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What the convolutions are given: contrasts in units of the noise, the tissue, and how strong the noise is."""
    middle = image[:, SLICES // 2 : SLICES // 2 + 1]
    contrasts = (image - _around(middle)) / (_CONTRAST * sigma)
    return torch.cat([contrasts, middle / _HU, (sigma / _USUAL_NOISE_HU).log()], dim=1)


def _around(image: torch.Tensor) -> torch.Tensor:
    """The mean of the surroundings of each pixel, 36 pixels wide; fewer count at the edge of the image."""
    small = functional.avg_pool2d(image, _POOL)
    wide = functional.avg_pool2d(small, 2 * _REACH + 1, 1, _REACH, count_include_pad=False)
    return functional.interpolate(wide, scale_factor=_POOL, mode="bilinear", align_corners=False)


def _conv(inward: int, outward: int, strides: int = 1) -> nn.Module:
    block: nn.Module = Convolution(2, inward, outward, strides=strides, act="RELU", norm=None)
    return block


def _residual(channels: int) -> nn.Module:
    block: nn.Module = ResidualUnit(2, channels, channels, act="RELU", norm=None, last_conv_only=True)
    return block


def _up(inward: int, outward: int) -> nn.Module:
    return nn.Sequential(Convolution(2, inward, outward, kernel_size=1, conv_only=True), nn.Upsample(scale_factor=2))


def _zero(inward: int) -> nn.Module:
    """A last convolution of zeros, so that training starts from the image as it is."""
    last = nn.Conv2d(inward, 4, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type] # it has one
    return last
