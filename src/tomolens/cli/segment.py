"""`tomolens segment`: segment every series below a folder that a model was made for."""

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
    from tomolens.core.segmentation import Segmentation


def segment(
    source: Source,
    out: Out,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A segmentation model's name (see `tomolens models`) or its folder.")
    ],
    device: Device = "auto",
    tilt: TiltWish = "keep",
    missing: MissingWish = "refuse",
    modality: ModalityWish = None,
    again: Again = False,
    dry_run: DryRun = False,
) -> None:
    """Segment every series below a folder, or one file, with a model of your choice.

    No segmentation model comes with Tomolens: `tomolens models import` takes one from a MONAI bundle. Series, image
    files, errors and finished work are treated as by `tomolens detect`.

    \b
    Examples:
      tomolens segment scans/ -o labels/ --model spleen_ct_segmentation
      tomolens segment scan.nii.gz -o labels/ --model my_model/ --device cuda

    \b
    Written into OUT:
      index.html                  every series in OUT with its volumes and pictures
      summary.csv, .json          what this call did with each series, and why
      SERIES/segmentation.nii.gz  the labels on the scan's own voxels
      SERIES/segmentation.json    the channel table, volumes in ml, the grid and
                                  the run manifest
      SERIES/volumes.csv          series_uid, label, name, voxels, volume_ml
      SERIES/montage.png          slices in colour
      SERIES/series.json          what was read and what was asked for
      SERIES/error.txt            instead of all these: why the series failed

    \b
    What becomes of a series (status in the summary):
      done      read, and its result written
      skipped   finished by an earlier call with the same files, model and options
      refused   the model is not made for it: another modality, a scout, too coarse
      failed    it should have been read and could not be, e.g. a missing slice

    \b
    Exit codes:
      0    nothing failed
      1    a series failed, or there was none
      2    wrong usage, e.g. an unknown model or device
      130  stopped by Ctrl-C (143: by SIGTERM); call again to go on

    Progress goes to stderr, the last line to stdout. Research use only. Not a medical device; not for diagnosis.
    """  # noqa: D301 - \b keeps typer from wrapping a table

    def batch(narrator: Narrator) -> Batch[Segmentation]:
        from tomolens.cli.batch import Batch, Wish
        from tomolens.cli.tasks import segmenting

        return Batch(Wish(source, out, device, tilt, missing, modality, again), segmenting(model), narrator)

    run_batch(batch, out, dry_run)
