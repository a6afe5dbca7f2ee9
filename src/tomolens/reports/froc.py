"""A picture of an FROC curve with its band."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from tomolens.core.finding import RESEARCH_USE
from tomolens.core.froc import BAND_RATES, RATES
from tomolens.io.atomic import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tomolens.core.evaluation import Evaluation

_SIZE, _DPI = (6.4, 5.2), 150
_CURVE, _BAR, _DIM = "#1f5fa8", "#c7d9ee", "#6b7178"
_NAMES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def write_froc(evaluation: Evaluation, path: Path | str, *, title: str) -> Path:
    """Draw sensitivity against false positives a scan from 1/8 to 8, with the 95 % band, into a PNG.

    Parameters
    ----------
    evaluation
        What to draw; its threshold, where it has one, is a cross.
    path
        Of the PNG; its folder is made where it is absent.
    title
        Above the picture.
    """
    path = Path(path)
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    _draw_curve(axes, evaluation)
    _draw_threshold(axes, evaluation)
    _draw_frame(axes, evaluation, title)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")
    return path


def _draw_curve(axes: Axes, evaluation: Evaluation) -> None:
    band, curve = evaluation.band, evaluation.curve
    label = f"95 % of {band.samples} bootstraps of {curve.scans} scans"
    axes.fill_between(band.rates, band.low, band.high, color=_BAR, linewidth=0, label=label)
    cpm = f"mean at the 7 points {curve.cpm:.3f} ({band.cpm_low:.3f} to {band.cpm_high:.3f})"
    axes.plot(BAND_RATES, curve.at(BAND_RATES), color=_CURVE, linewidth=1.8, label=cpm)
    axes.plot(RATES, curve.at(RATES), "o", color=_CURVE, markersize=4.5)


def _draw_threshold(axes: Axes, evaluation: Evaluation) -> None:
    counts = evaluation.counts
    if counts is None or not BAND_RATES[0] <= counts.false_positives_a_scan <= BAND_RATES[-1]:
        return
    sensitivity = counts.sensitivity.value or 0.0
    label = f"at a score of {evaluation.threshold:g}"
    axes.plot(counts.false_positives_a_scan, sensitivity, "x", color="black", markersize=9, label=label)


def _draw_frame(axes: Axes, evaluation: Evaluation, title: str) -> None:
    curve = evaluation.curve
    axes.set_title(title, parse_math=False, fontsize=12, loc="left")
    axes.set_xscale("log", base=2)
    axes.set_xlim(RATES[0], RATES[-1])
    axes.set_ylim(0, 1.005)
    axes.xaxis.set_major_locator(FixedLocator(RATES))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(RATES, _NAMES)
    axes.set_yticks([n / 10 for n in range(11)])
    axes.set_xlabel("false positives a scan")
    axes.set_ylabel(f"sensitivity ({curve.nodules} nodules)")
    axes.grid(color="#e3e6e9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="best", fontsize=9, framealpha=0.95)
    axes.figure.supxlabel(RESEARCH_USE, fontsize=7.5, color=_DIM)
