"""`tomolens train`: describe data, train a model, plot the log, and publish a run as a model folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tomolens.cli.stopping import INTERRUPTED
from tomolens.core.errors import TomolensError
from tomolens.core.reconstruction import Job  # noqa: TC001 - typer reads it at run time

if TYPE_CHECKING:
    from tomolens.core.card import Calibration
    from tomolens.core.progress import Progress, Step
    from tomolens.training.calibration import Rated
    from tomolens.training.classifier import ClassifierConfig
    from tomolens.training.config import RunConfig
    from tomolens.training.dataset import Dataset
    from tomolens.training.detector import TrainConfig
    from tomolens.training.sources import TrainingData

FIRST_PHANTOM_SEED = 100
FIRST_CALIBRATION_SEED = 600

train_app = typer.Typer(no_args_is_help=True, help="Train a model; publish a training run as a model folder.")

Data = Annotated[
    Path, typer.Option(exists=True, help="A dataset.json, or a folder that holds one or has a known layout.")
]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; one that was stopped is gone on with.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", exists=True, dir_okay=False, help="JSON with any field of the configuration."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the weights and of every patch.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds; each ends with a checkpoint.")]
Steps = Annotated[int | None, typer.Option(help="Batches a round.")]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Patches a batch.")]
Rate = Annotated[float | None, typer.Option(help="Peak of the learning rate.")]
StartFrom = Annotated[str | None, typer.Option(help="Name or folder of a model to fine-tune.")]
Phantoms = Annotated[int | None, typer.Option(min=0, help="Generated chests that are added to the data.")]
Workers = Annotated[int | None, typer.Option(help="Processes that prepare patches, for each that trains.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes that share each batch: one a GPU, or parts of the CPU.")]

Chosen = TypeVar("Chosen", bound="RunConfig")
Bred = TypeVar("Bred", "TrainConfig", "ClassifierConfig")


@train_app.command(short_help="Train the lung nodule detector.")
def detector(
    data: Data,
    out: Out,
    config: Config = None,
    seed: Seed = None,
    rounds: Rounds = None,
    steps: Steps = None,
    batch: BatchSize = None,
    learning_rate: Rate = None,
    start_from: StartFrom = None,
    phantoms: Phantoms = None,
    workers: Workers = None,
    device: Device = "auto",
    processes: Processes = 1,
) -> None:
    """Train the lung nodule detector; after each round hard negatives are mined in whole scans.

    \b
      tomolens train detector --data dataset.json -o run/
      tomolens train detector --data luna16/ -o run/ --start-from lung-nodule-centernet
      tomolens train detector --data dataset.json -o run/ --processes 4      four GPUs

    DATA is described by one file (`tomolens train describe` writes it; docs/training_data.md). Options stand above
    --config, that above the configuration of the run in OUT, that above the defaults. OUT gets config.json, log.csv,
    log.png and checkpoint.pt; call again to go on after a stop.
    """  # noqa: D301 - \b keeps typer from wrapping the examples
    from tomolens.training.detector import TrainConfig, train_detector

    wishes = _wishes(seed, rounds, steps, batch, learning_rate, start_from, phantoms, workers)
    _train(TrainConfig, train_detector, data, out, config, wishes, device, processes, inserting=False)


@train_app.command(short_help="Train the second stage.")
def classifier(
    data: Data,
    out: Out,
    config: Config = None,
    detector: Annotated[
        str | None, typer.Option(help="Name or folder of the detector whose marks are told from nodules.")
    ] = None,
    seed: Seed = None,
    rounds: Rounds = None,
    steps: Steps = None,
    batch: BatchSize = None,
    learning_rate: Rate = None,
    start_from: StartFrom = None,
    phantoms: Phantoms = None,
    workers: Workers = None,
    device: Device = "auto",
    processes: Processes = 1,
) -> None:
    """Train the second stage, which looks again at what a detector marks: nodule or not, malignancy, texture.

    \b
      tomolens train classifier --data dataset.json -o run2/ --detector run-detector/

    Data, configuration and OUT as of `tomolens train detector`; DATA must hold nodules with masks.
    """  # noqa: D301 - \b keeps typer from wrapping the example
    from tomolens.training.classifier import ClassifierConfig, train_classifier

    wishes = _wishes(seed, rounds, steps, batch, learning_rate, start_from, phantoms, workers)
    _train(ClassifierConfig, train_classifier, data, out, config, {**wishes, "detector": detector}, device, processes)


@train_app.command(short_help="Train a reconstruction network.")
def reconstruction(
    job: Annotated[Job, typer.Argument(help="What is reconstructed.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of images that train.")],
    out: Out,
    config: Config = None,
    seed: Seed = None,
    rounds: Rounds = None,
    steps: Steps = None,
    batch: BatchSize = None,
    learning_rate: Rate = None,
    start_from: StartFrom = None,
    gan: Annotated[
        bool, typer.Option("--gan", help="Train on the model of --start-from against a discriminator.")
    ] = False,
    phantoms: Phantoms = None,
    workers: Workers = None,
    device: Device = "auto",
    processes: Processes = 1,
) -> None:
    """Train a network that makes images: of low-dose CT, of undersampled k-space, or of thick slices.

    \b
      tomolens train reconstruction ct-denoising --data scans/ -o run/
      tomolens train reconstruction ct-denoising --data scans/ -o gan/ --start-from ct-denoiser --gan

    Configuration and OUT as of `tomolens train detector`. The weights of a GAN's loss stand in --config as "adversary".
    """  # noqa: D301 - \b keeps typer from wrapping the examples
    from tomolens.training.gan import Adversary
    from tomolens.training.reconstruction import ReconstructionConfig, config_for, train_reconstruction

    wishes = _wishes(seed, rounds, steps, batch, learning_rate, start_from, phantoms, workers)
    with refusals(), told() as tell:
        chosen = configured(ReconstructionConfig, out, config, {**wishes, "job": str(job)}, config_for(job))
        chosen = replace(chosen, adversary=chosen.adversary or Adversary()) if gan else chosen
        train_reconstruction(chosen, data, out, device, processes=processes, progress=tell)
    _trained(chosen, out)


def _wishes(
    seed: int | None,
    rounds: int | None,
    steps: int | None,
    batch: int | None,
    learning_rate: float | None,
    start_from: str | None,
    phantoms: int | None,
    workers: int | None,
) -> dict[str, Any]:
    """What was asked for by options, by the fields of the configuration; None where it was not."""
    seeds = None if phantoms is None else tuple(range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + phantoms))
    return {
        "seed": seed,
        "rounds": rounds,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "start_from": start_from,
        "phantom_seeds": seeds,
        "workers": workers,
    }


def _train(
    kind: type[Bred],
    train: Callable[..., object],
    data: Path,
    out: Path,
    config: Path | None,
    wishes: dict[str, Any],
    device: str,
    processes: int,
    *,
    inserting: bool = True,
) -> None:
    from tomolens.training.sources import load, open_dataset

    with refusals():
        chosen = configured(kind, out, config, wishes)
        dataset = open_dataset(data)
    typer.echo(f"{data}: {_holds(dataset)}")
    with refusals(), told() as tell:
        loaded = load(dataset, chosen.phantom_seeds, tell, inserting=inserting)
    _tell_seen(loaded)
    with refusals(), told() as tell:
        train(chosen, loaded, out, device, processes=processes, progress=tell)
    _trained(chosen, out)


def _holds(dataset: Dataset) -> str:
    cubes = sum(len(cubes.patients()) for cubes in dataset.cubes)
    unlisted = f"; {dataset.unlisted} rows of scans that are not listed" if dataset.unlisted else ""
    nodules = f"{len(dataset.scans)} scans with {dataset.marks} nodules, {len(dataset.nodules)} nodule volumes"
    return f"{nodules}, {cubes} cubes{unlisted}"


def _tell_seen(data: TrainingData) -> None:
    """Say how many nodules are where they are marked, so that a table of other places does not pass unseen."""
    places = [*data.seen, *(data.held_out.seen if data.held_out else ())]
    if places:
        here = sum(place.here for place in places)
        typer.echo(f"{here} of {len(places)} marked nodules are denser than the lung around them.")


def _trained(chosen: RunConfig, out: Path) -> None:
    typer.echo(f"Trained {chosen.total_steps} steps; publish with: tomolens train publish {out} CARD.json -o FOLDER")


@train_app.command()
def describe(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Scans and tables of marks.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The description to write.")],
    val: Annotated[
        list[str] | None, typer.Option(help="Folder, scan or patient to keep out; may be given several times.")
    ] = None,
) -> None:
    """Describe a folder of training data as a dataset.json, to be looked through and changed by hand.

    Found are CT files in FOLDER, FOLDER/ct and FOLDER/subset0 to subset9 with annotations*.csv beside them (LUNA16 as
    it is downloaded), DICOM series of CT, and the LIDC nodule sets lidc_cubes51/ and lidc_voi/.
    """
    from tomolens.io.atomic import whole_file
    from tomolens.training.dataset import dataset_of
    from tomolens.training.describe import describe as sections_of

    with refusals():
        sections = sections_of(folder, val or ())
        dataset = dataset_of(sections, out)
        with whole_file(out) as temporary:
            temporary.write_text(json.dumps(sections, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{out}: {_holds(dataset)}")


@train_app.command()
def plot(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a training run.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG to write; RUN/log.png where not given.")] = None,
) -> None:
    """Draw the log of a run: losses, learning rate and mined negatives by step."""
    from tomolens.io.atomic import whole_file
    from tomolens.training.curves import draw_log
    from tomolens.training.runs import PLOT, read_log

    file = out or run / PLOT
    with refusals():
        rows = read_log(run)
        with whole_file(file) as temporary:
            draw_log(rows, temporary)
    typer.echo(f"{file}: {len(rows)} rounds")


@train_app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="Folder that a training wrote.")],
    card: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="JSON with name, version, summary, intended_use, trained_on, licence, authors, figures, task, ...",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model folder to write; an older one there is replaced.")],
) -> None:
    """Write a run's weights and card as a model folder that `--model FOLDER` takes.

    A detector's card also says its default_min_score; that of a reconstruction its input and ranges. A licence other
    than Apache-2.0 comes with its text, licence_file; figures_from says what measured the figures, on which data.
    """
    from tomolens.training.publish import Publication
    from tomolens.training.publish import publish as write

    with refusals():
        bundle = write(run, Publication.read(card), out)
    typer.echo(f"{bundle.folder}: {bundle.card.name} {bundle.card.version}")


@train_app.command()
def calibrate(
    model: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Model folder of a detector or of a second stage.")
    ],
    data: Data,
    detector: Annotated[
        str | None, typer.Option(help="For a second stage, the detector that it looks again for.")
    ] = None,
    a_scan: Annotated[int, typer.Option(min=1, help="Times that nodules are put into each scan anew.")] = 3,
    phantoms: Annotated[
        int, typer.Option(min=0, help="Generated chests that are added, none of them trained on.")
    ] = 12,
    device: Device = "auto",
) -> None:
    """Fit the score that is shown to the share of such findings that are nodules, and write it into the model's card.

    Nodules of DATA's split val are put into its scans and into generated chests, and the model marks them; where it
    holds none with a mask those of train are, of which a model that learned from them is too sure: that is said. A
    score of .8 shall mean that four in five such findings are nodules in scans that hold as many nodules as LUNA16's,
    1.3 a scan. Of a second stage a malignancy of .8 shall mean that four in five such nodules are malignant, by DATA's
    diagnoses or ratings.
    """
    from tomolens.training import calibration
    from tomolens.training.sources import open_dataset

    seeds = range(FIRST_CALIBRATION_SEED, FIRST_CALIBRATION_SEED + phantoms)
    with refusals(), told() as tell:
        marker = calibration.calibrated_detector(model, detector, device)
        shown, doubt = calibration.kept_out(open_dataset(data), seeds, tell)
        models = calibration.answering(model, detector)
        shown, refused = calibration.without_refused(shown, [bundle.card.input for bundle in models])
        doubts = [doubt, refused, *(calibration.learned(bundle, shown) for bundle in models)]
        seen = calibration.judged(marker, calibration.cases(shown, a_scan, tell), shown.donors)
        scale = calibration.calibrate(model, marker, seen)
    for said in filter(None, doubts):
        typer.echo(said, err=True)
    weights = f"{scale.detector:.3f} x detector + {scale.classifier:.3f} x second stage {scale.offset:+.3f}"
    typer.echo(f"{model}: the score is the logistic function of {weights}")
    if marker.second_stage is not None:
        typer.echo(_malignancy(scale, seen.rated, calibration.LEAST_RATED))


def _malignancy(scale: Calibration, rated: Rated, least: int) -> str:
    if not rated.is_enough:
        return (
            f"malignancy is left as the network answers: at least {least} nodules that are not all rated alike are "
            f"needed, not {rated.count}"
        )
    weights = f"{scale.malignancy:.3f} x the network's answer {scale.malignancy_offset:+.3f}"
    return f"malignancy is the logistic function of {weights}, by {rated.count} rated nodules"


def configured(
    kind: type[Chosen], out: Path, config: Path | None, wishes: dict[str, Any], start: Chosen | None = None
) -> Chosen:
    """A run's configuration: options above the file, the file above ``start``; without a file that of the run in OUT.

    Raises
    ------
    OptionError
        If a key of the file is unknown or a value is not accepted.
    """
    from tomolens.training.config import record_of
    from tomolens.training.runs import CONFIG

    base = config or (out / CONFIG if (out / CONFIG).is_file() else None)
    values = json.loads((start or kind()).to_json())
    if base is not None:
        text = base.read_text(encoding="utf-8")
        kind.from_json(text, str(base))
        values |= json.loads(text)
    given = {name: value for name, value in wishes.items() if value is not None}
    return record_of(kind, {**values, **given}, "the options")


@contextmanager
def told() -> Iterator[Progress]:
    """A bar for the stage that is going on."""
    from rich.progress import Progress as Bars

    with Bars(*Bars.get_default_columns()) as bars:
        bar = bars.add_task("read data", total=None)

        def tell(step: Step) -> None:
            bars.update(bar, description=step.stage, completed=step.done, total=step.total or None)

        yield tell


@contextmanager
def refusals() -> Iterator[None]:
    """Say an expected error in one line and end with exit code 2; after Ctrl-C say that the run goes on."""
    try:
        yield
    except TomolensError as wrong:
        typer.echo(f"Error: {wrong}", err=True)
        raise typer.Exit(2) from wrong
    except KeyboardInterrupt as stopped:
        typer.echo("Stopped. The same command goes on from the last finished round; later steps are lost.", err=True)
        raise typer.Exit(INTERRUPTED) from stopped
