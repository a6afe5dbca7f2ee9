"""The normal equations of undersampled slices as tensors: what a network asks of its measurement, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn.functional import avg_pool2d

_BLUR = 5


@dataclass(frozen=True, eq=False)
class Measurement:
    """The normal equations of a batch of measurements: complex ``wanted`` (n, row, column) is what they should give."""

    wanted: torch.Tensor
    maps: torch.Tensor
    conjugate: torch.Tensor
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
        seen = torch.view_as_complex(maps.float().contiguous())
        return cls(as_complex(image), seen, seen.conj().resolve_conj(), mask, axes)

    def turned(self, phase: torch.Tensor) -> Measurement:
        """The same for an image whose phase is taken off and given to the maps; ``phase`` has unit magnitude."""
        maps = self.maps * phase[:, None]
        return replace(self, wanted=self.wanted * phase.conj(), maps=maps, conjugate=maps.conj().resolve_conj())

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """What the adjoint makes of how an image would have been measured; see `tomolens.physics.sense.Sense`."""
        seen = torch.fft.fftn(self.maps * image[:, None], dim=self.axes, norm="ortho")
        torch.view_as_real(seen).mul_(self.mask[..., None])
        back = torch.fft.ifftn(seen, dim=self.axes, norm="ortho")
        together: torch.Tensor = back.mul_(self.conjugate).sum(dim=1)
        return together

    def missed(self, image: torch.Tensor) -> torch.Tensor:
        """Which way an image is to be changed to fit the measurement better."""
        return self.wanted - self.normal(image)

    def fitted(self, start: torch.Tensor | None, weight: torch.Tensor, steps: int) -> torch.Tensor:
        """Conjugate gradient steps towards what fits the measurement and is near ``start``; None is all zeros."""
        found = torch.zeros_like(self.wanted) if start is None else start
        left = self.wanted if start is None else self.missed(start)
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
    return torch.view_as_real(image).square().sum(dim=(-3, -2, -1))[:, None, None]


def as_complex(image: torch.Tensor) -> torch.Tensor:
    """(n, 2, row, column), real and imaginary part, to complex (n, row, column)."""
    return torch.complex(image[:, 0].float(), image[:, 1].float())


def as_real(image: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_complex`."""
    return torch.stack([image.real, image.imag], dim=1)
