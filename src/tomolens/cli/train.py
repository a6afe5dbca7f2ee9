"""`tomolens train`: train a model, and publish a run as a model folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomolens.cli.stopping import INTERRUPTED
from tomolens.core.errors import TomolensError

if TYPE_CHECKING:
    from tomolens.core.progress import Step

FIRST_PHANTOM_SEED = 100

train_app = typer.Typer(no_args_is_help=True, help="Train a model; publish a training run as a model folder.")


@train_app.command()
def detector(
    data: Annotated[
        Path,
        typer.Option(
            exists=True, file_okay=False, help="Folder with ct/, lidc_cubes51/ and lidc_voi/ (each may be absent)."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; one that was stopped is gone on with.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights and of every patch.")] = 20,
    rounds: Annotated[
        int, typer.Option(help="Rounds; after each, hard negatives are mined and a checkpoint is written.")
    ] = 7,
    steps: Annotated[int, typer.Option(help="Batches a round.")] = 300,
    batch: Annotated[int, typer.Option(help="Patches of 64 mm a batch.")] = 8,
    phantoms: Annotated[int, typer.Option(help="Generated chests that are added to the data.")] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train the lung nodule detector.

    \b
    DATA is laid out so; each part may be absent, but some lung and some nodule are needed:
      ct/*.nii.gz                      chest CT in HU, with annotations.csv and annotations_excluded.csv as in LUNA16
                                       (volume, coordX, coordY, coordZ in LPS mm, diameter_mm)
      lidc_cubes51/cubes.npz           image (n, k, j, i) HU at 1 mm, mask, name; ratings.csv with Filename, texture
      lidc_voi/{image,mask}/*.nii.gz   nodules; metadata.csv with k (the file name) and Texture_value

    OUT gets config.json, log.csv (loss by round) and checkpoint.pt. Call again with the same options
    to go on after a stop.
    """  # noqa: D301 - \b keeps typer from wrapping the table
    from rich.progress import Progress as Bars

    from tomolens.training.detector import TrainConfig, train_detector
    from tomolens.training.sources import load_dataset

    with _refusals(), Bars(*Bars.get_default_columns()) as bars:
        bar = bars.add_task("read data", total=None)

        def tell(step: Step) -> None:
            bars.update(bar, description=step.stage, completed=step.done, total=step.total or None)

        seeds = tuple(range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + phantoms))
        config = TrainConfig(seed=seed, rounds=rounds, steps=steps, batch=batch, phantom_seeds=seeds)
        train_detector(config, load_dataset(data, config.phantom_seeds, tell), out, device, progress=tell)
    typer.echo(f"Trained {config.total_steps} steps; publish with: tomolens train publish {out} CARD.json -o FOLDER")


@train_app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder that `tomolens train detector` wrote.")],
    card: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="JSON with name, version, summary, intended_use, trained_on, licence, default_min_score, figures.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model folder to write; an older one there is replaced.")],
) -> None:
    """Write a run's weights and card as a model folder that `detect --model FOLDER` takes."""
    from tomolens.training.publish import Publication
    from tomolens.training.publish import publish as write

    with _refusals():
        bundle = write(run, Publication.read(card), out)
    typer.echo(f"{bundle.folder}: {bundle.card.name} {bundle.card.version}")


@contextmanager
def _refusals() -> Iterator[None]:
    """Say an expected error in one line and end with exit code 2; after Ctrl-C say that the run goes on."""
    try:
        yield
    except TomolensError as wrong:
        typer.echo(f"Error: {wrong}", err=True)
        raise typer.Exit(2) from wrong
    except KeyboardInterrupt as stopped:
        typer.echo("Stopped. The same command goes on from the last finished round.", err=True)
        raise typer.Exit(INTERRUPTED) from stopped
