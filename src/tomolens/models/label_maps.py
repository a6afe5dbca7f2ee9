"""From a network's channels on its own grid to labels on the scan's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tomolens.core.progress import Progress, Step
from tomolens.models.resampling import resampled

if TYPE_CHECKING:
    from tomolens.core.grid import Grid
    from tomolens.models.recipe import Answer

STAGE = "labels"
_ROWS_AT_ONCE = 16
"""Slices at a time: 100 channels of a whole body on the scan's grid would not fit together."""

Paint = Sequence[tuple[int, int]]
"""(channel, label) pairs, later ones on top."""


def labels_on(
    target: Grid,
    channels: torch.Tensor,
    source: Grid,
    answer: Answer,
    progress: Progress,
    seen: Sequence[Grid] | None = None,
) -> NDArray[Any]:
    """(channels, *source.shape) raw answers to labels of ``target.shape``, uint8 or uint16; 0 outside of ``seen``.

    ``seen`` are boxes that hold all that the network saw, None ``source`` alone. What they hold beyond the faces of
    ``source``, since its spacing does not divide the scan, gets the label of the nearest voxel. ``channels`` are
    activated in place.
    """
    boxes = (source,) if seen is None else seen
    if answer.back == "linear" or answer.decision == "threshold":
        _activate(channels, answer.activation)
    paint = painting(channels, answer)
    dtype = np.uint8 if max((label for _, label in paint), default=len(channels) - 1) < 256 else np.uint16

    def straight(rows: slice) -> torch.Tensor:
        labels = _decided(resampled(channels, source, target, rows=rows, fill=None), answer, paint)
        return _held(labels, target, boxes, rows)

    if answer.back == "linear":
        return _largest_parts(_in_slabs(target, dtype, straight, progress), answer.largest)
    decided = torch.cat([_decided(part, answer, paint) for part in torch.split(channels, _ROWS_AT_ONCE, dim=1)])
    if answer.largest_first:
        _largest_parts(decided.numpy(), answer.largest)

    def looked_up(rows: slice) -> torch.Tensor:
        looked = resampled(decided[None], source, target, rows=rows, nearest=True, fill=None)[0]
        return _held(looked, target, boxes, rows)

    labels = _in_slabs(target, dtype, looked_up, progress)
    return labels if answer.largest_first else _largest_parts(labels, answer.largest)


def _held(labels: torch.Tensor, target: Grid, boxes: Sequence[Grid], rows: slice) -> torch.Tensor:
    """The labels, with 0 where a box does not reach."""
    for box in boxes:
        everywhere = torch.ones(()).expand(1, *box.shape)
        labels = labels.where(resampled(everywhere, box, target, rows=rows, nearest=True)[0] > 0, 0)
    return labels


def painting(channels: torch.Tensor, answer: Answer) -> Paint:
    """Which region lies on which: as the bundle says, else the smaller one on top; empty where channels compete."""
    if answer.decision == "argmax":
        return ()
    sizes = [int((channel >= answer.threshold).sum()) for channel in channels]
    return answer.paint or [(channel, channel + 1) for channel in sorted(range(len(sizes)), key=lambda c: -sizes[c])]


def covered_regions(channels: torch.Tensor, grid: Grid, answer: Answer, names: Mapping[int, str]) -> list[str]:
    """What the labels do not show of regions that overlap: each one's whole volume, and how much lies under others.

    ``channels`` are activated ones.
    """
    if answer.decision == "argmax" or len(channels) < 2:
        return []
    ml = float(np.prod(grid.spacing_mm)) / 1000
    paint, notes = painting(channels, answer), []
    on_top = torch.zeros(channels.shape[1:], dtype=torch.bool)
    for channel, label in reversed(paint):
        region = channels[channel] >= answer.threshold
        hidden = int((region & on_top).sum())
        on_top |= region
        if hidden:
            whole, name = int(region.sum()) * ml, names.get(label, str(label))
            notes.append(
                f"Label {label} ({name}) shows what no other region covers: the region is {whole:.1f} ml, of which "
                f"{hidden * ml:.1f} ml bear another region's label."
            )
    return notes


def _activate(channels: torch.Tensor, activation: str) -> None:
    """Logits to probabilities, in place and a few slices at a time."""
    for part in torch.split(channels, _ROWS_AT_ONCE, dim=1):
        if activation == "softmax":
            part.copy_(part.softmax(dim=0))
        elif activation == "sigmoid":
            part.sigmoid_()


def _decided(channels: torch.Tensor, answer: Answer, paint: Paint) -> torch.Tensor:
    """(channels, ...) to the label of each voxel, int32."""
    if answer.decision == "argmax":
        return channels.argmax(dim=0).to(torch.int32)
    labels = torch.zeros(channels.shape[1:], dtype=torch.int32)
    for channel, label in paint:
        labels[channels[channel] >= answer.threshold] = label
    return labels


def _in_slabs(
    grid: Grid, dtype: type[np.unsignedinteger[Any]], slab: Callable[[slice], torch.Tensor], progress: Progress
) -> NDArray[Any]:
    drawn = np.zeros(grid.shape, dtype)
    for first in range(0, grid.shape[0], _ROWS_AT_ONCE):
        progress(Step(STAGE, first, grid.shape[0]))
        rows = slice(first, first + _ROWS_AT_ONCE)
        drawn[rows] = slab(rows).numpy()
    progress(Step(STAGE, grid.shape[0], grid.shape[0]))
    return drawn


def _largest_parts(labels: NDArray[Any], kept: Sequence[int]) -> NDArray[Any]:
    """Of each of these labels only the largest part that hangs together, corners included."""
    for label in kept:
        parts, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        if count > 1:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            labels[(parts > 0) & (parts != sizes.argmax())] = 0
    return labels
