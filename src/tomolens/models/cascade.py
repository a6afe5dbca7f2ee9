"""A reconstruction that is unrolled: from a few conjugate gradients on, rounds of 2D CNNs that see what is missed."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from tomolens.models.normal_equations import Measurement, as_complex, as_real, smooth_phase

_TRUST, _TRUST_PACE = (0.22, 0.35), 5.0
"""How far the CNNs are believed where the measurement has the last word: a weight of 1 at 0.3 % noise, 3 at 1 %, 12 at
6 %."""
_CG_STEPS, _CG_LEAST, _CG_PER_NOISE = 5, 0.005, 0.5
"""Of the image that the first round is given; weights as of `tomolens.physics.sense.tuned_cg`."""
_MISSED = 4.0
"""What is missed is shown multiplied by this: it is small beside the image."""
_PACE, _STEP = 0.5, 0.3
"""What a CNN's answer is multiplied by, so that the first steps of a training do not throw it far off; and how far a
round goes towards the measurement before it has learned."""
_SLOPE = 0.1
_ACT = ("LEAKYRELU", {"negative_slope": _SLOPE, "inplace": True})
_LEAST_NOISE = 1e-4
_DEEPEST = 8
"""Images are padded to multiples of this inside the CNNs."""
_START_LOG_SIGMA = -3.5
_MOST_LOG_SIGMA = 2.0


class CascadedSense(nn.Module):
    """CG-SENSE, bettered in rounds, each with a CNN of its own that sees the image and how it misses the measurement.

    A learned gradient descent as in Hammernik et al., Magn Reson Med 2018; 79:3055-3071, and Sriram et al., MICCAI
    2020, arXiv:2004.06688: a round takes a step towards the measurement and takes away what its CNN says, which hands
    its features to the next. The last word is a CNN's, not the measurement's, whose noise would come back with it. The
    image's smooth phase is given to the coils, so that the CNNs see a nearly real image and artefacts beside it. Their
    last convolutions start at zero, so that an untrained network is CG-SENSE of a few steps more.

    Input: ``image`` (n, 2, row, column), the adjoint of the measurement as real and imaginary part; ``maps``
    (n, coil, row, column, 2); ``acquired`` (n, row, column) bool; ``noise`` (n,), as of
    `tomolens.physics.sense.Measured`. Output (n, 3, row, column): real and imaginary part, and the natural logarithm of
    the magnitude's standard deviation. ``doubt_scale`` multiplies that deviation: fitted after the training. With
    ``consistent`` the measurement has the last word, by a step of conjugate gradients, as it must where a GAN may have
    invented something.
    """

    inputs = ("image", "maps", "acquired", "noise")

    def __init__(
        self,
        rounds: int = 5,
        channels: Sequence[int] = (32, 64, 96),
        doubt_scale: float = 1.0,
        consistent: bool = False,
    ) -> None:
        super().__init__()
        self.consistent = consistent
        self.log_scale = log(doubt_scale)
        self.rounds = nn.ModuleList(Round(channels) for _ in range(rounds))
        self.doubt = Doubt(channels[0])

    def forward(
        self, image: torch.Tensor, maps: torch.Tensor, acquired: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """See the class."""
        known = known_of(noise, acquired)
        measured = Measurement.of(image, maps, acquired)
        weight = (_CG_LEAST + _CG_PER_NOISE * noise.float())[:, None, None]
        start = measured.fitted(None, weight, _CG_STEPS)
        phase = smooth_phase(as_real(start))
        measured = measured.turned(phase)
        first = found = as_real(start * phase.conj())
        features: torch.Tensor | None = None
        for each in self.rounds:
            missed = as_real(measured.missed(as_complex(found)))
            found, features = each(found, missed, known, features)
        if self.consistent:
            believed = torch.exp(_TRUST_PACE * (_TRUST[0] + _TRUST[1] * known[:, :1, None]))
            found = as_real(measured.fitted(as_complex(found), believed, 1))
        seen = torch.cat([found, found - first], dim=1).detach()
        return torch.cat([as_real(as_complex(found) * phase), self.doubt(seen, known) + self.log_scale], dim=1)


class Round(nn.Module):
    """A step towards the measurement and a CNN on three scales that says what to take away, nothing to begin with."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = self.channels = channels
        self.step = nn.Parameter(torch.tensor(_STEP))
        self.opening = nn.Sequential(conv(24 + fine, fine), conv(fine, fine))
        self.down = nn.ModuleList([conv(4 * fine, middle, kernel=1), conv(4 * middle, coarse, kernel=1)])
        self.inner = nn.ModuleList([conv(middle, middle), nn.Sequential(conv(coarse, coarse), conv(coarse, coarse))])
        self.up = nn.ModuleList([conv(middle, 4 * fine, kernel=1), conv(coarse, 4 * middle, kernel=1)])
        self.joined = nn.ModuleList([conv(fine, fine), conv(middle, middle)])
        self.last = nn.Conv2d(fine, 8, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type] # it has one

    def forward(
        self, image: torch.Tensor, missed: torch.Tensor, known: torch.Tensor, features: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """An image and how it misses its measurement, both (n, 2, row, column), to a better image and features.

        ``features`` are those of the round before; None in the first.
        """
        shown = packed(torch.cat([image, _MISSED * missed], dim=1), known)
        if features is None:
            features = shown.new_zeros((len(shown), self.channels[0], *shown.shape[-2:]))
        fine = self.opening(torch.cat([shown, features.to(shown.dtype)], dim=1))
        middle = self.inner[0](self.down[0](pixel_unshuffle(fine, 2)))
        coarse = self.inner[1](self.down[1](pixel_unshuffle(middle, 2)))
        middle = self.joined[1](middle + pixel_shuffle(self.up[1](coarse), 2))
        fine = self.joined[0](fine + pixel_shuffle(self.up[0](middle), 2))
        rows, columns = image.shape[-2:]
        change = pixel_shuffle(self.last(fine), 2)[..., :rows, :columns]
        return image + self.step * missed - _PACE * change.float(), fine


class Doubt(nn.Module):
    """How far the magnitude may be off: (n, 4, row, column), answer and its change, to a log of sigma."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(24, width), conv(width, width), nn.Conv2d(width, 4, 3, padding=1))
        nn.init.constant_(self.layers[-1].bias, _START_LOG_SIGMA)  # type: ignore[arg-type] # it is a tensor

    def forward(self, seen: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """See the class."""
        rows, columns = seen.shape[-2:]
        answer: torch.Tensor = pixel_shuffle(self.layers(packed(seen, known)), 2)[..., :rows, :columns]
        return answer.float().clamp(max=_MOST_LOG_SIGMA)


def known_of(noise: torch.Tensor, acquired: torch.Tensor) -> torch.Tensor:
    """(n, 2): the logarithm of the noise and the share that was measured, both of the order of 1."""
    level = torch.log10(noise.float().clamp(min=_LEAST_NOISE)) + 2
    return torch.stack([level, 4 * acquired.float().mean(dim=(-2, -1))], dim=1)


def packed(image: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Two by two pixels as channels, what is known beside them, padded with zeros to a multiple of 8."""
    rows, columns = image.shape[-2:]
    constant = known[..., None, None].expand(-1, -1, rows, columns).to(image.dtype)
    return pixel_unshuffle(pad(torch.cat([image, constant], 1), (0, -columns % _DEEPEST, 0, -rows % _DEEPEST)), 2)


def conv(inward: int, outward: int, kernel: int = 3) -> nn.Module:
    """Without norms, so started such that features neither fade nor grow with depth (He et al. 2015)."""
    block: nn.Module = Convolution(2, inward, outward, kernel_size=kernel, act=_ACT, norm=None, adn_ordering="A")
    for name, parameter in block.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, a=_SLOPE)
        else:
            nn.init.zeros_(parameter)
    return block
