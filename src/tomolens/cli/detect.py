"""`tomolens detect`: find lung nodules in every CT series below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tomolens.cli.console import Narrator
from tomolens.cli.stopping import INTERRUPTED, orderly_stop
from tomolens.core.errors import ModelError, OptionError, TomolensError

if TYPE_CHECKING:
    from tomolens.cli.summary import Summary

FAILED = 1
USAGE = 2


def detect(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_FILE", exists=True, help="DICOM at any depth, or one image file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if absent.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model's name (see `tomolens models`) or its folder."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto (a CUDA GPU if there is one), cpu, cuda or cuda:N.")
    ] = "auto",
    min_score: Annotated[
        float | None,
        typer.Option(metavar="0..1", min=0, max=1, help="Threshold on the score; without it the model's own."),
    ] = None,
    tilt: Annotated[
        Literal["keep", "resample"],
        typer.Option(help="A tilted gantry's slices: keep the sheared grid, or resample them onto a rectangular one."),
    ] = "keep",
    missing: Annotated[
        Literal["refuse", "keep-largest"],
        typer.Option(help="Where slices are missing: refuse the series, or read the longest run without a gap."),
    ] = "refuse",
    modality: Annotated[
        Literal["CT", "MR"] | None,
        typer.Option(help="What image files show; without it told from their numbers."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Do finished series again too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
) -> None:
    """Find lung nodules in every CT series below a folder, or in one file.

    DICOM is told apart into series by its headers, whatever the files are called. NIfTI, NRRD and MetaImage files
    count as one series each. The model is loaded once. A series that cannot be read is reported and passed over.
    Series that an earlier call finished with the same files, model and options are skipped, so a call that was stopped
    goes on where it was.

    \b
    Examples:
      tomolens detect scans/ -o results/
      tomolens detect scan.nii.gz -o results/ --min-score 0.3
      tomolens detect /archive -o results/ --device cuda --dry-run

    \b
    Written into OUT:
      index.html            every series in OUT with its findings and pictures
      summary.csv, .json    what this call did with each series, and why
      SERIES/findings.csv   series_uid, finding, score, x_mm, y_mm, z_mm,
                            diameter_mm, slice; surest first; patient LPS in
                            mm, rounded to 0.01; slices count from 0
      SERIES/findings.json  the same not rounded, the candidates below the
                            threshold, the grid and the run manifest
      SERIES/montage.png    where the findings lie and what they look like
      SERIES/series.json    what was read and what was asked for
      SERIES/error.txt      instead of all these: why the series failed

    SERIES is made of the description and a hash of the SeriesInstanceUID. Nothing written holds a patient's name,
    birth date or ID; error messages may hold paths. A result appears whole or not at all, also after Ctrl-C or kill.

    \b
    What becomes of a series (status in the summary):
      done      read, and its result written
      skipped   finished by an earlier call with the same files, model and options
      refused   the model is not made for it: no CT, a scout, too coarse, no lungs
      failed    it should have been read and could not be, e.g. a missing slice

    \b
    Exit codes:
      0    nothing failed
      1    a series failed, or there was none
      2    wrong usage, e.g. an unknown model or device
      130  stopped by Ctrl-C (143: by SIGTERM); call again to go on

    Progress goes to stderr, the last line to stdout. Research use only. Not a medical device; not for diagnosis.
    """  # noqa: D301 - \b keeps typer from wrapping a table
    with orderly_stop(), Narrator() as narrator:
        try:
            from tomolens.cli.batch import Batch, Wish

            wish = Wish(source, out, model, device, min_score, tilt, missing, modality, again)
            batch = Batch(wish, narrator)
            summary = batch.rehearse() if dry_run else batch.run()
        except (ModelError, OptionError) as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(USAGE) from wrong
        except (TomolensError, OSError) as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(FAILED) from wrong
        except KeyboardInterrupt as stopped:
            narrator.say("Stopped. What is finished stays; the same command goes on from here.")
            raise typer.Exit(INTERRUPTED) from stopped
    typer.echo(_told(summary, out, dry_run))
    raise typer.Exit(FAILED if summary.failed or not summary.found else 0)


def _told(summary: Summary, out: Path, dry_run: bool) -> str:
    """The last line: how many of each, and where to look."""
    if not summary.found:
        return "There is no image series here. `tomolens info` says what the files are."
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts().items() if count)
    return f"Would be: {counts}. Nothing was written." if dry_run else f"{counts}. See {out / 'index.html'}"
