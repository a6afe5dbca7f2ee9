"""A reconstruction that is unrolled: from TV-SENSE on, a few rounds of a small 2D CNN that sees what is missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn.functional import avg_pool2d, pad, pixel_shuffle, pixel_unshuffle

_LEAST_NOISE = 1e-4
_TRUST, _TRUST_PACE = (0.22, 0.35), 5.0
"""How far the CNN is believed to begin with: a weight of 1 at 0.3 % noise, 3 at 1 %, 12 at 6 %; and how fast that is
learned."""
_STEPS, _LEAST_WEIGHT = 2, 0.02
"""Of conjugate gradients towards the measurement; where they lead is shown to the CNN."""
_SLOPE = 0.1
_ACT = ("LEAKYRELU", {"negative_slope": _SLOPE})
_PACE = 0.2
"""What the CNN's answer is multiplied by, so that the first steps of a training do not throw it far off."""
_BLUR = 5
_DEEPEST = 8
"""Images are padded to multiples of this inside the CNNs."""
_START_LOG_SIGMA = -3.5
_MOST_LOG_SIGMA = 2.0


class UnrolledSense(nn.Module):
    """TV-SENSE, bettered in a few rounds by a CNN that sees the image and how it misses the measurement.

    The image's smooth phase is given to the coils, so that the CNN sees a nearly real image and artefacts beside it. A
    learned gradient descent as in Hammernik et al., Magn Reson Med 2018; 79:3055-3071, with one CNN for all rounds,
    and one step of data consistency at the end (Aggarwal et al., MoDL, IEEE Trans Med Imaging 2019; 38:394-405) whose
    weight of the CNN's answer grows with the noise. The CNN's last convolution starts at zero, so that an untrained
    network is TV-SENSE brought nearer to the measurement.

    Input: ``start`` (n, 2, row, column), a few steps of TV-SENSE as real and imaginary part, brightest tissue about 1;
    ``image`` (n, 2, row, column), the adjoint of the measurement; ``maps`` (n, coil, row, column, 2); ``acquired``
    (n, row, column) bool; ``noise`` (n,), as of `tomolens.physics.sense.Measured`. Output (n, 3, row, column): real and
    imaginary part, and the natural logarithm of the magnitude's standard deviation. ``doubt_scale`` multiplies that
    deviation: fitted after the training.
    """

    inputs = ("start", "image", "maps", "acquired", "noise")

    def __init__(self, rounds: int = 3, channels: Sequence[int] = (32, 64, 96), doubt_scale: float = 1.0) -> None:
        super().__init__()
        self.rounds, self.log_scale = rounds, log(doubt_scale)
        self.prior = Prior(channels)
        self.trust = nn.Parameter(torch.tensor(_TRUST))
        self.doubt = Doubt(channels[0])

    def forward(
        self,
        start: torch.Tensor,
        image: torch.Tensor,
        maps: torch.Tensor,
        acquired: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """See the class."""
        known, phase = known_of(noise, acquired), smooth_phase(start)
        measured = Measurement.of(image, maps, acquired).turned(phase)
        first = found = as_real(as_complex(start) * phase.conj())
        for _ in range(self.rounds):
            fitted = as_real(measured.fitted(as_complex(found), _LEAST_WEIGHT, _STEPS))
            found = self.prior(found, fitted - found, known)
        weight = torch.exp(_TRUST_PACE * (self.trust[0] + self.trust[1] * known[:, :1, None]))
        answer = measured.fitted(as_complex(found), weight, 1)
        seen = torch.cat([as_real(answer), as_real(answer) - first], dim=1).detach()
        return torch.cat([as_real(answer * phase), self.doubt(seen, known) + self.log_scale], dim=1)


class Prior(nn.Module):
    """What an image should look like: a CNN on three scales that says what to take away, nothing to begin with."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.opening = nn.Sequential(conv(24, fine), conv(fine, fine))
        self.down = nn.ModuleList([conv(4 * fine, middle, kernel=1), conv(4 * middle, coarse, kernel=1)])
        self.inner = nn.ModuleList([conv(middle, middle), nn.Sequential(conv(coarse, coarse), conv(coarse, coarse))])
        self.up = nn.ModuleList([conv(middle, 4 * fine, kernel=1), conv(coarse, 4 * middle, kernel=1)])
        self.joined = nn.ModuleList([conv(fine, fine), conv(middle, middle)])
        self.last = nn.Conv2d(fine, 8, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type] # it has one

    def forward(self, image: torch.Tensor, missed: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """An image and how it misses its measurement, both (n, 2, row, column), to a better image."""
        fine = self.opening(packed(torch.cat([image, missed], dim=1), known))
        middle = self.inner[0](self.down[0](pixel_unshuffle(fine, 2)))
        coarse = self.inner[1](self.down[1](pixel_unshuffle(middle, 2)))
        middle = self.joined[1](middle + pixel_shuffle(self.up[1](coarse), 2))
        fine = self.joined[0](fine + pixel_shuffle(self.up[0](middle), 2))
        rows, columns = image.shape[-2:]
        change: torch.Tensor = pixel_shuffle(self.last(fine), 2)[..., :rows, :columns]
        return image - _PACE * change.float()


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


@dataclass(frozen=True, eq=False)
class Measurement:
    """The normal equations of a batch of measurements: complex ``wanted`` (n, row, column) is what they should give."""

    wanted: torch.Tensor
    maps: torch.Tensor
    mask: torch.Tensor
    axes: tuple[int, ...]

    @classmethod
    def of(cls, image: torch.Tensor, maps: torch.Tensor, acquired: torch.Tensor) -> Measurement:
        """Transforms are left out along an axis that every slice of the batch has measured whole."""
        changes = [bool((acquired != acquired.narrow(axis, 0, 1)).any()) for axis in (-2, -1)]
        axes = tuple(axis for axis, changed in zip((-2, -1), changes, strict=True) if changed)
        mask = torch.fft.ifftshift(acquired.float(), dim=(-2, -1))[:, None]
        for axis in {-2, -1} - set(axes):
            mask = mask.narrow(axis, 0, 1)
        return cls(as_complex(image), torch.view_as_complex(maps.float().contiguous()), mask, axes)

    def turned(self, phase: torch.Tensor) -> Measurement:
        """The same for an image whose phase is taken off and given to the maps; ``phase`` has unit magnitude."""
        return replace(self, wanted=self.wanted * phase.conj(), maps=self.maps * phase[:, None])

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """What the adjoint makes of how an image would have been measured; see `tomolens.physics.sense.Sense`."""
        seen = torch.fft.fftn(self.maps * image[:, None], dim=self.axes, norm="ortho")
        back = torch.fft.ifftn(seen * self.mask, dim=self.axes, norm="ortho")
        together: torch.Tensor = (self.maps.conj() * back).sum(dim=1)
        return together

    def missed(self, image: torch.Tensor) -> torch.Tensor:
        """Which way an image is to be changed to fit the measurement better."""
        return self.wanted - self.normal(image)

    def fitted(self, start: torch.Tensor, weight: torch.Tensor | float, steps: int) -> torch.Tensor:
        """Conjugate gradient steps towards what fits the measurement and is near ``start``."""
        found, left = start, self.missed(start)
        direction, size = left, _squared(left)
        for _ in range(steps):
            moved = self.normal(direction) + weight * direction
            share = size / (direction.conj() * moved).real.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-20)
            found = found + share * direction
            left = left - share * moved
            before, size = size, _squared(left)
            direction = left + size / before.clamp(min=1e-20) * direction
        return found


def smooth_phase(image: torch.Tensor) -> torch.Tensor:
    """(n, row, column), of unit magnitude: where it is taken off, an image is nearly real and what is not is wrong."""
    smooth = image.float()
    for _ in range(2):
        smooth = avg_pool2d(smooth, _BLUR, 1, _BLUR // 2)
    turned = as_complex(smooth)
    return turned / turned.abs().clamp(min=1e-6) + (turned.abs() < 1e-6)


def _squared(image: torch.Tensor) -> torch.Tensor:
    return (image.real**2 + image.imag**2).sum(dim=(-2, -1), keepdim=True)


def known_of(noise: torch.Tensor, acquired: torch.Tensor) -> torch.Tensor:
    """(n, 2): the logarithm of the noise and the share that was measured, both of the order of 1."""
    level = torch.log10(noise.float().clamp(min=_LEAST_NOISE)) + 2
    return torch.stack([level, 4 * acquired.float().mean(dim=(-2, -1))], dim=1)


def packed(image: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Two by two pixels as channels, what is known beside them, padded with zeros to a multiple of 8."""
    rows, columns = image.shape[-2:]
    constant = known[..., None, None].expand(-1, -1, rows, columns).to(image.dtype)
    return pixel_unshuffle(pad(torch.cat([image, constant], 1), (0, -columns % _DEEPEST, 0, -rows % _DEEPEST)), 2)


def as_complex(image: torch.Tensor) -> torch.Tensor:
    """(n, 2, row, column), real and imaginary part, to complex (n, row, column)."""
    return torch.complex(image[:, 0].float(), image[:, 1].float())


def as_real(image: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_complex`."""
    return torch.stack([image.real, image.imag], dim=1)


def conv(inward: int, outward: int, kernel: int = 3) -> nn.Module:
    """Without norms, so started such that features neither fade nor grow with depth (He et al. 2015)."""
    block: nn.Module = Convolution(2, inward, outward, kernel_size=kernel, act=_ACT, norm=None, adn_ordering="A")
    for name, parameter in block.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, a=_SLOPE)
        else:
            nn.init.zeros_(parameter)
    return block
