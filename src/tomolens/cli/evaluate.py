"""`tomolens evaluate`: how good marks are, by LUNA16's protocol or against one's own truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomolens.core.errors import TomolensError

if TYPE_CHECKING:
    from tomolens.core.evaluation import Evaluation, Subgroup
    from tomolens.core.metrics import Counts, Share
    from tomolens.io.truth import Joined

FAILED, USAGE = 1, 2
_LEFT, _CELL = 24, 7

evaluate_app = typer.Typer(
    no_args_is_help=True,
    help="""Say how good a detector's marks are: sensitivity against false positives a scan.

    \b
      tomolens evaluate luna16 marks.csv --annotations annotations.csv
               --excluded annotations_excluded.csv --seriesuids seriesuids.csv
               -o evaluation/
      tomolens evaluate detection results/ --truth truth.csv -o evaluation/

    Both score by the rules of LUNA16 (doi:10.1016/j.media.2017.06.015):

    \b
      - a mark hits a nodule where its distance to the centre is less than the
        radius, and not where it is equal
      - several marks on one nodule count once, with the highest score
      - of a scan's marks the 100 surest count
      - a mark on an excluded finding is neither a hit nor a false positive
      - every scan that was read counts, without nodules or marks too
      - equal scores enter the curve together
      - the mean (CPM) is over 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a
        scan; the band is 95 % of 1000 bootstraps of scans
    """,
)

Out = Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the files; made if absent.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the bootstrap; the same gives the same band.")]


@evaluate_app.command(short_help="Score marks by the LUNA16 protocol.")
def luna16(
    marks: Annotated[
        Path,
        typer.Argument(metavar="MARKS", exists=True, help="A submission as CSV, or a folder of `tomolens detect`."),
    ],
    annotations: Annotated[
        Path, typer.Option(metavar="CSV", exists=True, dir_okay=False, help="LUNA16's annotations.csv.")
    ],
    excluded: Annotated[
        Path, typer.Option(metavar="CSV", exists=True, dir_okay=False, help="LUNA16's annotations_excluded.csv.")
    ],
    out: Out,
    seriesuids: Annotated[
        Path | None,
        typer.Option(metavar="CSV", exists=True, dir_okay=False, help="Every scan that was read, one a line."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Score marks by the LUNA16 protocol.

    \b
    Tables (CSV with a heading; LPS mm):
      MARKS          seriesuid, coordX, coordY, coordZ, probability
                     or a folder of `tomolens detect`: all candidates of each
                     findings.json count, those below the threshold too
      --annotations  seriesuid, coordX, coordY, coordZ, diameter_mm
      --excluded     the same; a diameter below 0 is read as 10 mm
      --seriesuids   one SeriesInstanceUID a line. Without it the scans are
                     those of the two tables: scans that hold neither a nodule
                     nor an excluded finding are then missing in the
                     denominator, and marks in them are refused

    \b
    Written into OUT:
      evaluation.json  every figure (and what was read, by its SHA-256)
      froc.csv, .png   the curve and its band
      nodules.csv      each nodule, the score it was found with, how far off

    \b
    Exit codes:
      0  scored
      1  a table cannot be right; the message names its line
      2  wrong usage
    """  # noqa: D301 - \b keeps typer from wrapping a table
    from tomolens.io.truth import luna16_scans

    with _refusals():
        joined = luna16_scans(marks, annotations, excluded, seriesuids)
        inputs = {"marks": marks, "annotations": annotations, "excluded": excluded, "seriesuids": seriesuids}
        _evaluate(joined, None, seed, out, f"LUNA16 protocol: {marks.name}", inputs)


@evaluate_app.command(short_help="Score results of `tomolens detect` against your own truth.")
def detection(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", exists=True, help="A folder of `tomolens detect`, or a CSV.")
    ],
    truth: Annotated[Path, typer.Option(metavar="CSV", exists=True, dir_okay=False, help="What is in the scans.")],
    out: Out,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="SCORE", help="For precision, recall and so on; without it that of the results."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Score results of `tomolens detect` against your own truth.

    \b
    Tables (CSV with a heading; LPS mm):
      RESULTS  a folder of `tomolens detect`: all candidates of each
               findings.json count, those below the threshold too. Or a CSV,
               e.g. one findings.csv, with series_uid or source, x_mm, y_mm,
               z_mm, score: the curve then ends where the table does
      --truth  series_uid (or source: the file or series description that was
               read), x_mm, y_mm, z_mm, diameter_mm; where wished, texture and
               place, in any words: sensitivity is also told by each of them.
               A row with a scan's name alone says that it holds no nodule:
               scans without nodules belong into the count. A scan that has
               no result counts as read, with nothing found

    \b
    At the threshold:
      sensitivity (recall)  found nodules / nodules
      precision             found nodules / (found + false positives)
      F1                    their harmonic mean
      accuracy              found / (found + missed + false positives). There
                            are no true negatives in detection: nobody can
                            count the places that were rightly not marked

    \b
    Written into OUT:
      evaluation.json  every figure (and what was read, by its SHA-256)
      froc.csv, .png   the curve and its band
      nodules.csv      each nodule, the score it was found with, how far off

    \b
    Exit codes:
      0  scored
      1  a table cannot be right; the message names its line
      2  wrong usage
    """  # noqa: D301 - \b keeps typer from wrapping a table
    from tomolens.io.truth import own_scans

    with _refusals():
        joined = own_scans(results, truth)
        chosen = joined.min_score if threshold is None else threshold
        inputs = {"results": results, "truth": truth}
        _evaluate(joined, chosen, seed, out, f"{results.name} against {truth.name}", inputs)


def _evaluate(
    joined: Joined, threshold: float | None, seed: int, out: Path, title: str, inputs: Mapping[str, Path | None]
) -> None:
    from tomolens.core.evaluation import evaluate
    from tomolens.reports.evaluation import PLOT_NAME, write_evaluation

    evaluation = evaluate(joined.scans, threshold, seed=seed)
    written = write_evaluation(evaluation, out, title=title, inputs=inputs, notes=joined.notes)
    for note in joined.notes:
        typer.echo(f"Note: {note}.", err=True)
    for line in lines_of(evaluation, title):
        typer.echo(line)
    typer.echo(f"\nSee {written} and {PLOT_NAME} beside it.")


@contextmanager
def _refusals() -> Iterator[None]:
    """Say an expected error in one line."""
    try:
        yield
    except (TomolensError, OSError) as wrong:
        typer.echo(f"Error: {wrong}", err=True)
        raise typer.Exit(FAILED) from wrong


def lines_of(evaluation: Evaluation, title: str) -> list[str]:
    """The figures as a table of plain text."""
    from tomolens.core.froc import RATES

    curve, band = evaluation.curve, evaluation.band
    marks = evaluation.marks()
    low, high = zip(*map(band.at, RATES), strict=True)
    return [
        title,
        f"{curve.scans} scans ({evaluation.scans_without_nodules} without a nodule), {curve.nodules} nodules",
        f"{marks['read']} marks: {marks['hits']} hits, {marks['doubles']} more on the same nodules, "
        f"{marks['false_positives']} false,",
        f"  {marks['on_excluded']} on excluded findings, {marks['beyond_the_100_surest']} beyond a scan's 100 surest",
        "",
        _row("false positives a scan", ["1/8", "1/4", "1/2", "1", "2", "4", "8", "mean"]),
        _row("sensitivity", [*curve.at(RATES), curve.cpm]),
        _row(f"95 % of {band.samples}: from", [*low, band.cpm_low]),
        _row("  to", [*high, band.cpm_high]),
        *_subgroup_lines(evaluation.subgroups),
        *(_threshold_lines(evaluation.counts, evaluation.threshold) if evaluation.counts else ()),
        *_centre_line(evaluation.centre_error_mm()),
    ]


def _row(name: str, cells: list[str | float]) -> str:
    return f"{name:{_LEFT}}" + "".join(f"{cell if isinstance(cell, str) else f'{cell:.3f}':>{_CELL}}" for cell in cells)


def _subgroup_lines(subgroups: tuple[Subgroup, ...]) -> Iterator[str]:
    from tomolens.core.froc import RATES

    grouping = ""
    for group in subgroups:
        if group.grouping != grouping:
            grouping = group.grouping
            yield f"\nsensitivity by {grouping} (nodules)"
        name = f"  {group.label[: _LEFT - 10]} ({group.curve.nodules})"
        yield _row(name, [*group.curve.at(RATES), group.curve.cpm])


def _threshold_lines(counts: Counts, threshold: float | None) -> Iterator[str]:
    yield f"\nat a score of {threshold:g} and above"
    yield _figure("sensitivity (recall)", counts.sensitivity)
    yield _figure("precision", counts.precision)
    yield f"  {'F1':22} {_number(counts.f1)}"
    yield f"  {'accuracy':22} {_number(counts.accuracy)}  found / (found + missed + false positives)"
    yield f"  {'false positives a scan':22} {counts.false_positives_a_scan:.2f}"


def _figure(name: str, share: Share) -> str:
    low, high = share.interval
    return f"  {name:22} {_number(share.value)}  {share.count} of {share.total}, 95 % from {low:.3f} to {high:.3f}"


def _number(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _centre_line(error_mm: float | None) -> Iterator[str]:
    if error_mm is not None:
        yield f"\nmedian distance of mark and centre {error_mm:.1f} mm"
