"""Pictures for a model's card: the log of its training, and how far its scores are what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tomolens.core.metrics import ReliabilityBin

LOSS = "_loss"
HELD_OUT = "val_"
_PANELS = {"learning_rate": "learning rate", "mined": "mined hard negatives", "seconds": "seconds a round"}
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")


def draw_log(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw a log as `tomolens.training.runs.read_log` reads it into a PNG of some 40 kB.

    Every column that ends in ``_loss`` is a curve on a logarithmic scale, dashed where it is that of scans that were
    kept out (``val_``); learning rate, mined negatives and seconds have a panel each where the log has them.
    """
    panels = [name for name in _PANELS if any(name in row for row in rows)]
    figure = Figure(figsize=(8, 3.2 + 1.3 * len(panels)), layout="constrained")
    heights = [3.0, *(1.0 for _ in panels)]
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_losses(rows, axes[0])
    for axis, name in zip(axes[1:], panels, strict=True):
        _draw(rows, axis, name, color="tab:gray")
        axis.set_title(_PANELS[name], loc="left", fontsize="medium")
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("steps")
    figure.savefig(file, dpi=100, format="png")


def _draw_losses(rows: Sequence[Mapping[str, float]], axis: Axes) -> None:
    losses = list(dict.fromkeys(name.removeprefix(HELD_OUT) for row in rows for name in row if name.endswith(LOSS)))
    for number, loss in enumerate(losses):
        colour, label = _COLOURS[number % len(_COLOURS)], loss.removesuffix(LOSS).replace("_", " ")
        _draw(rows, axis, loss, color=colour, label=label)
        _draw(rows, axis, HELD_OUT + loss, color=colour, label=f"{label}, kept out", linestyle="--")
    if all(row[name] > 0 for row in rows for name in row if name.endswith(LOSS)):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_title("loss", loc="left", fontsize="medium")
    if losses:
        axis.legend(frameon=False, ncols=2)


def _draw(rows: Sequence[Mapping[str, float]], axis: Axes, name: str, **style: str) -> None:
    """One column by step; a round that has no value there is left out."""
    points = [(row["steps"], row[name]) for row in rows if name in row]
    if points:
        axis.plot(*zip(*points, strict=True), marker=".", **style)  # type: ignore[arg-type] # style is strings
    axis.grid(alpha=0.3)


def draw_reliability(points: Sequence[ReliabilityBin], file: Path) -> None:
    """Draw a reliability diagram into a PNG: by bins of the score the share that was right, and how many there were."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axis = figure.subplots()
    axis.plot((0, 1), (0, 1), color="tab:gray", linestyle="--", label="as promised")
    means, shares = zip(*((point.mean_score, point.share_true) for point in points), strict=True)
    axis.plot(means, shares, marker="o", color="tab:blue", label="measured")
    for point in points:
        axis.annotate(str(point.count), (point.mean_score, point.share_true), (4, -10), textcoords="offset points")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), xlabel="mean score of a bin", ylabel="share that are nodules")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=100, format="png")
