"""`tomolens reconstruct`: denoise CT, make MR images of k-space, make thin slices of thick ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tomolens.cli.every_series import (
    Again,
    Device,
    DryRun,
    MissingWish,
    ModalityWish,
    Out,
    TiltWish,
    run_batch,
)

if TYPE_CHECKING:
    from tomolens.cli.batch import Batch
    from tomolens.cli.console import Narrator
    from tomolens.core.reconstruction import Reconstruction


def reconstruct(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_FILE", exists=True, help="DICOM at any depth, an image file, or k-space files."
        ),
    ],
    out: Out,
    job: Annotated[
        Literal["ct-denoising", "mri-reconstruction", "super-resolution"],
        typer.Option(help="Less noise in a CT; an image from k-space; thin slices from thick ones."),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A network or a classical method (see `tomolens models`), or a folder."),
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="Of denoising: the share of the change that is kept.")
    ] = 1.0,
    factor: Annotated[
        int | None,
        typer.Option(min=2, max=5, help="Of super-resolution: thin slices for each thick one; else what is needed."),
    ] = None,
    baseline: Annotated[
        str, typer.Option(metavar="NAME", help="A classical method to run beside the model, or none.")
    ] = "none",
    uncertainty: Annotated[bool, typer.Option(help="Whether a map of the uncertainty is made; it takes time.")] = True,
    allow_gan: Annotated[
        bool, typer.Option("--allow-gan", help="Accept a GAN, whose texture may be invented.")
    ] = False,
    format: Annotated[
        Literal["auto", "dicom", "nifti"], typer.Option(help="Of the images: auto is DICOM where the source is.")
    ] = "auto",
    device: Device = "auto",
    tilt: TiltWish = "keep",
    missing: MissingWish = "refuse",
    modality: ModalityWish = None,
    again: Again = False,
    dry_run: DryRun = False,
) -> None:
    """Denoise CT, make MR images of undersampled k-space, or make thin slices of thick ones.

    Every result comes with what was changed, how sure it is where the method can tell, and checks of the input against
    what the model was trained on, each with its number. Series, errors and finished work are treated as by `tomolens
    detect`; for mri-reconstruction k-space files (npz, ISMRMRD, fastMRI, BART) are looked for.

    \b
    Examples:
      tomolens reconstruct scans/ -o quiet/ --job ct-denoising --strength 0.7
      tomolens reconstruct kspace/ -o images/ --job mri-reconstruction
      tomolens reconstruct scan.nii.gz -o thin/ --job super-resolution --factor 3

    \b
    Written into OUT:
      index.html                    every series in OUT with checks and pictures
      summary.csv, .json            what this call did with each series, and why
      SERIES/dicom/                 DICOM in: a derived series with UIDs of its
                                    own, each image naming its sources. It holds
                                    the patient's name and ID; nothing else does
      SERIES/reconstruction.nii.gz  anything else in: the image
      SERIES/difference.nii.gz      result minus what it is compared with
      SERIES/uncertainty.nii.gz     one standard deviation, where there is one
      SERIES/reference.nii.gz       zero-filled image or cubic spline
      SERIES/baseline.nii.gz        what the classical method makes of it
      SERIES/reconstruction.json    checks, warnings, hashes, the run manifest
      SERIES/montage.png            before, after, difference, uncertainty
      SERIES/series.json            what was read and what was asked for
      SERIES/error.txt              instead of all these: why the series failed

    \b
    What becomes of a series (status in the summary):
      done      read, and its result written
      skipped   finished by an earlier call with the same files, model and options
      refused   the model is not made for it: another modality, no k-space
      failed    it should have been read and could not be, e.g. a missing slice

    \b
    Exit codes:
      0    nothing failed
      1    a series failed, or there was none
      2    wrong usage, e.g. an unknown model, or a GAN without --allow-gan
      130  stopped by Ctrl-C (143: by SIGTERM); call again to go on

    Progress goes to stderr, the last line to stdout. Research use only. Not a medical device; not for diagnosis.
    """  # noqa: D301 - \b keeps typer from wrapping a table

    def batch(narrator: Narrator) -> Batch[Reconstruction]:
        from tomolens.cli.batch import Batch, Wish
        from tomolens.cli.reconstructing import ReconstructWish, reconstructing
        from tomolens.core.reconstruction import Job, ReconstructOptions

        options = ReconstructOptions(strength, uncertainty, factor, allow_gan)
        task = reconstructing(ReconstructWish(Job(job), model, options, baseline, format))
        return Batch(Wish(source, out, device, tilt, missing, modality, again), task, narrator)

    run_batch(batch, out, dry_run)
