"""`tomolens detect`: find lung nodules in every CT series below a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tomolens.cli.every_series import (
    Again,
    Device,
    DryRun,
    MissingWish,
    ModalityWish,
    Out,
    Source,
    TiltWish,
    run_batch,
)

if TYPE_CHECKING:
    from tomolens.cli.batch import Batch
    from tomolens.cli.console import Narrator
    from tomolens.core.finding import Detection


def detect(
    source: Source,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model's name (see `tomolens models`) or its folder."),
    ] = None,
    second_stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What looks again at each candidate, or none; without it the model's own."),
    ] = None,
    device: Device = "auto",
    min_score: Annotated[
        float | None,
        typer.Option(metavar="0..1", min=0, max=1, help="Threshold on the score; without it the model's own."),
    ] = None,
    tilt: TiltWish = "keep",
    missing: MissingWish = "refuse",
    modality: ModalityWish = None,
    again: Again = False,
    dry_run: DryRun = False,
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
                            diameter_mm, slice, texture, malignancy, source;
                            surest first; patient LPS in mm, rounded to
                            0.01; slices count from 0
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

    def batch(narrator: Narrator) -> Batch[Detection]:
        from tomolens.cli.batch import Batch, Wish
        from tomolens.cli.tasks import detecting

        task = detecting(model, min_score, second_stage)
        return Batch(Wish(source, out, device, tilt, missing, modality, again), task, narrator)

    run_batch(batch, out, dry_run)
