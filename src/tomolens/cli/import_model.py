"""`tomolens models import`: take over a MONAI bundle of somebody else's as data."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from tomolens.cli.console import Narrator
from tomolens.cli.stopping import INTERRUPTED, orderly_stop
from tomolens.core.errors import ModelError, TomolensError
from tomolens.io.atomic import whole_folder

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.models.import_bundle import Wish

REFUSED = 2
FAILED = 1


def import_(
    source: Annotated[
        str, typer.Argument(metavar="PATH_OR_NAME", help="A bundle's folder or zip, or its name in MONAI's model zoo.")
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name here; without it the bundle's.")] = None,
    modality: Annotated[
        str | None, typer.Option(metavar="CT|MR|..", help="DICOM's modality, where the bundle does not say it.")
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL_OR_FOLDER", help="Holds model_info.json and the zips; used in place of the zoo."),
    ] = None,
    models_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to put it; without it $TOMOLENS_MODELS or the user's data folder."),
    ] = None,
) -> None:
    """Take over a MONAI bundle: a folder, a zip, or a name in MONAI's model zoo.

    The bundle's JSON is read as data and its weights become safetensors: none of its code and none of its
    $expressions is run. What cannot be mapped is refused, with the file and the key. The model then serves `detect`
    or `segment` by its name. Nobody but its authors has validated it, and its card says so.

    \b
    Examples:
      tomolens models import spleen_ct_segmentation
      tomolens models import downloads/spleen_ct_segmentation_v0.3.7.zip
      tomolens models import my_bundle/ --name my-spleen
      tomolens models import brats_mri_segmentation --mirror https://mirror.example/zoo

    \b
    Exit codes:
      0    imported
      1    the zoo or the disk failed
      2    refused: the message says what and why
      130  stopped; nothing is left half-written
    """  # noqa: D301 - \b keeps typer from wrapping the examples
    with orderly_stop(), Narrator() as narrator:
        try:
            from tomolens.models.import_bundle import Wish

            card, folder = _imported(source, Wish(name, modality), mirror, models_folder, narrator)
        except ModelError as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(REFUSED) from wrong
        except (TomolensError, OSError) as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(FAILED) from wrong
        except KeyboardInterrupt as stopped:
            narrator.say("Stopped. Nothing was imported.")
            raise typer.Exit(INTERRUPTED) from stopped
    typer.echo(f"Imported {card.name} {card.version} ({card.task}) into {folder}.")
    typer.echo(card.origin)


def _imported(
    source: str, wish: Wish, mirror: str | None, models_folder: Path | None, narrator: Narrator
) -> tuple[ModelCard, Path]:
    from tomolens.models.import_bundle import import_bundle, model_name
    from tomolens.models.import_zoo import fetch, is_zoo_name
    from tomolens.models.registry import models_folder as usual_folder

    with TemporaryDirectory(prefix="tomolens-zoo-") as downloads:
        path = Path(source)
        if (mirror is not None or not path.exists()) and is_zoo_name(source):
            path = fetch(source, Path(downloads), mirror, narrator.step)
        target = (models_folder or usual_folder()) / model_name(path, wish)
        if target.exists():
            raise ModelError(
                f"There is {target} already; `tomolens models remove {target.name}` removes it, --name gives "
                "this one another name."
            )
        with whole_folder(target) as folder:
            return import_bundle(path, folder, wish, narrator.step), target
