"""A `CenterNet` rewritten for inference on a CPU: the same answer, sooner and in less memory.

The maps at 2 mm are by far the largest, and most of what is not arithmetic is spent on fetching fresh memory for them.
So the stem and the strided convolutions after it run over a few slices at a time, small enough to stay in the
processor's cache: each convolution keeps the last slices that it was fed, so nothing is computed twice and no seam
shows. What follows works in place.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from monai.networks.blocks import ResidualUnit
from monai.networks.utils import pixelunshuffle
from torch import nn

from tomolens.models.networks import CenterNet, folded

PIECE_BYTES = 16 * 2**20
"""About the size of one map of the stem, of a piece of the scan: a few of them fit into the cache."""
OPENING = (
    "stem.0.conv",
    "stem.1.conv.unit0.conv",
    "stem.1.conv.unit1.conv",
    "stages.0.0.conv.unit0.conv",
    "stages.0.0.residual",
)
"""The convolutions that work piece by piece, in their order."""
WIDE = 32
"""Channels that the first convolution reads in float32."""
LEAST_SLICES = 8
"""A piece has at least this many slices of 2 mm, so that each convolution has three of them to work on."""


class Rolling:
    """A convolution of three slices' depth that is fed a map piece by piece along its slices.

    It answers as `torch.nn.Conv3d` with a padding of 1 does; what needs the next piece comes with the next piece.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        self._conv = conv
        self._stride = int(conv.stride[0])
        self._kept: torch.Tensor | None = None

    def __call__(self, piece: torch.Tensor, is_last: bool) -> torch.Tensor:
        """(1, channels, slices, j, i) of the input to the slices of the answer that are known now."""
        edge = torch.zeros_like(piece[:, :, :1])
        before = edge if self._kept is None else self._kept
        fed = torch.cat([before, piece, edge] if is_last else [before, piece], dim=2)
        answers = (fed.shape[2] - 3) // self._stride + 1
        self._kept = fed[:, :, self._stride * answers :]
        return nn.functional.conv3d(fed, self._conv.weight, self._conv.bias, self._conv.stride, (0, 1, 1))


class Opening(nn.Module):
    """The stem and the strided convolutions after it. Its state is that of one pass: see `begin`."""

    def __init__(self, network: CenterNet) -> None:
        super().__init__()
        self.convs = nn.ModuleList(network.get_submodule(name) for name in OPENING)
        self.begin()

    def begin(self) -> None:
        """Forget the pieces of an earlier pass."""
        self._rolling = [Rolling(conv) for conv in self.convs if isinstance(conv, nn.Conv3d)]
        self._waiting: torch.Tensor | None = None

    def forward(self, piece: torch.Tensor, is_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Both answers of the strided unit, (1, channels, slices, j/2, i/2), as far as they are known now."""
        first, second, third, strided, shortcut = self._rolling
        entered = first(piece, is_last).relu_()
        features = third(second(entered, is_last).relu_(), is_last).relu_()
        waiting = entered if self._waiting is None else torch.cat([self._waiting, entered], dim=2)
        known = features.shape[2]
        features += waiting[:, :, :known]
        self._waiting = waiting[:, :, known:]
        return strided(features, is_last).relu_(), shortcut(features, is_last)


class Streamed(nn.Module):
    """A folded `CenterNet` for one image at a time; input and output as of `CenterNet`."""

    def __init__(self, network: CenterNet, dtype: torch.dtype) -> None:
        super().__init__()
        _widen(network.get_submodule(OPENING[0]), dtype)
        self.opening = Opening(network)
        self.widened = network.get_submodule("stages.0.0.conv.unit1")
        self.stages = nn.ModuleList([network.get_submodule("stages.0.1"), *network.stages[1:]])
        self.pyramid, self.head = network.pyramid, network.head
        _work_in_place(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See the class."""
        self.opening.begin()
        count = self.pieces(tuple(image.shape[2:]), image.itemsize)
        pieces = enumerate(self._pieces(pixelunshuffle(image, 3, 2)), 1)
        opened = [self.opening(piece, number == count) for number, piece in pieces]
        main, shortcut = (torch.cat(parts, dim=2) for parts in zip(*opened, strict=True))
        self.opening.begin()
        del opened
        features = self.widened(main).add_(shortcut)
        levels = {}
        for depth, stage in enumerate(self.stages):
            features = stage(features)
            levels[str(depth)] = features
        output: torch.Tensor = self.head(self.pyramid(levels)["0"])
        return output

    def pieces(self, shape: tuple[int, ...], itemsize: int) -> int:
        """In how many pieces an image of (k, j, i) voxels goes through the opening."""
        return len(range(0, shape[0] // 2, self._depth(shape[1] // 2 * (shape[2] // 2), itemsize)))

    def _pieces(self, unshuffled: torch.Tensor) -> Iterator[torch.Tensor]:
        depth = self._depth(unshuffled[0, 0, 0].numel(), unshuffled.itemsize)
        spare = int(self.opening.convs[0].in_channels) - unshuffled.shape[1]  # type: ignore[arg-type]
        for piece in unshuffled.split(depth, dim=2):  # type: ignore[no-untyped-call] # torch's own
            wide = nn.functional.pad(piece, (0, 0, 0, 0, 0, 0, 0, spare))
            yield wide.contiguous(memory_format=torch.channels_last_3d)

    def _depth(self, plane: int, itemsize: int) -> int:
        channels = int(self.opening.convs[0].out_channels)  # type: ignore[arg-type]
        return max(LEAST_SLICES, PIECE_BYTES // (plane * channels * itemsize))


class _Residual(nn.Module):
    """MONAI's residual unit, adding in place."""

    def __init__(self, unit: ResidualUnit) -> None:
        super().__init__()
        self.conv, self.residual = unit.conv, unit.residual

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.conv(features)
        return answer.add_(self.residual(features))


def _work_in_place(network: nn.Module) -> None:
    for name, child in network.named_children():
        _work_in_place(child)
        if isinstance(child, ResidualUnit):
            setattr(network, name, _Residual(child))
        elif isinstance(child, nn.ReLU):
            child.inplace = True


def _widen(conv: nn.Module, dtype: torch.dtype) -> None:
    """Let the first convolution read channels of zeros too: in float32, oneDNN takes half the time for 32 as for 8."""
    if dtype == torch.float32 and isinstance(conv, nn.Conv3d) and conv.in_channels < WIDE:
        spare = (0, 0, 0, 0, 0, 0, 0, WIDE - conv.in_channels)
        conv.weight = nn.Parameter(nn.functional.pad(conv.weight, spare), requires_grad=False)
        conv.in_channels = WIDE


def streamed(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same network in this precision for a CPU, its norms folded; other networks than `CenterNet` stay as they are.

    It takes the weights over, so give it a copy.
    """
    if isinstance(network, CenterNet):
        folded(network)
        network = Streamed(network, dtype)
    ready: nn.Module = network.to(dtype).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's stub lacks it
    return ready
