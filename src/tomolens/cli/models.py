"""`tomolens models`: what models there are, what they take and how good they were measured; import and remove."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tomolens.cli.import_model import import_
from tomolens.core.errors import ModelError
from tomolens.core.reconstruction import GENERATIVE, Job

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard

USAGE = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print the cards as JSON for another program.")]
ModelsFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where imported models lie; without it $TOMOLENS_MODELS or the user's data folder."
    ),
]

models_app = typer.Typer(
    invoke_without_command=True,
    help="List the models: those that ship with Tomolens, methods without training, and those that were imported.\n\n"
    "`tomolens detect`, `segment` and `reconstruct` take one of them with --model NAME, or the folder of a model.",
)


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models: those that ship with Tomolens, methods without training, and those that were imported.

    `tomolens detect`, `segment` and `reconstruct` take one of them with --model NAME, or the folder of a model.
    """
    if context.invoked_subcommand is None:
        list_(as_json)


@models_app.command(name="list", short_help="List the models and their figures.")
def list_(as_json: AsJson = False, models_folder: ModelsFolder = None) -> None:
    """List the models: what each takes, its licence and its measured figures. Folders that cannot be read are told."""
    from tomolens.models.registry import DEFAULT_DETECTOR, imported_bundles

    groups = _groups(models_folder)
    if as_json:
        cards = [_to_json(card, DEFAULT_DETECTOR) for group in groups.values() for card in group]
        typer.echo(json.dumps(cards, indent=2))
        return
    console = Console(highlight=False)
    for job, group in groups.items():
        if job:
            console.rule(f"{job}: tomolens reconstruct --job {job} --model NAME", align="left", style="dim")
        for card in group:
            console.print(_table(card, card.name == DEFAULT_DETECTOR))
    for broken in imported_bundles(models_folder)[1]:
        typer.echo(f"Cannot be used: {broken.folder}: {broken.reason}", err=True)


@models_app.command(short_help="Say all that is known of one model.")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or its folder.")],
    as_json: AsJson = False,
    models_folder: ModelsFolder = None,
) -> None:
    """Say all that is known of one model: where it comes from, what it takes, how it is run, what its labels mean."""
    from tomolens.models.registry import DEFAULT_DETECTOR

    card, folder = _found(name, models_folder)
    if as_json:
        typer.echo(json.dumps(_to_json(card, DEFAULT_DETECTOR), indent=2))
        return
    table = _table(card, card.name == DEFAULT_DETECTOR)
    for title, value in _details(card).items():
        table.add_row(title, value)
    table.add_row("folder", str(folder or "none: a method without weights"))
    Console(highlight=False).print(table)


def _found(name: str, models_folder: Path | None) -> tuple[ModelCard, Path | None]:
    """The card of a model and its folder; of a method without training its card alone."""
    from tomolens.models.reconstructor import classical_cards
    from tomolens.models.registry import find_bundle

    methods = {method: card for job in Job for method, card in classical_cards(job).items()}
    try:
        bundle = find_bundle(name, models_folder)
    except ModelError as unknown:
        if name in methods:
            return methods[name], None
        told = ModelError(f"{unknown} Methods without training: {', '.join(methods)}.")
        raise _refused(told) from unknown
    return bundle.card, bundle.folder


def _groups(models_folder: Path | None) -> dict[str, list[ModelCard]]:
    """What reconstructs by its job, the default first; all else under ``""``."""
    from tomolens.models.reconstructor import reconstruction_models
    from tomolens.models.registry import list_models

    cards = list_models(models_folder)
    groups = {"": [card for card in cards if card.task not in set(Job)]}
    return groups | {job: list(reconstruction_models(job, cards)) for job in Job}


@models_app.command(short_help="Remove an imported model.")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of an imported model.")],
    models_folder: ModelsFolder = None,
) -> None:
    """Remove an imported model's folder. A model that ships with Tomolens is not removed."""
    from tomolens.models.registry import imported_bundles

    bundles, unreadable = imported_bundles(models_folder)
    folders = {place.name: place for place in [*(b.folder for b in bundles), *(u.folder for u in unreadable)]}
    if name not in folders:
        raise _refused(ModelError(f"There is no imported model {name!r}; there are {', '.join(folders) or 'none'}."))
    shutil.rmtree(folders[name])
    typer.echo(f"Removed {folders[name]}.")


models_app.command(name="import", short_help="Take over a MONAI bundle.")(import_)


def _refused(wrong: ModelError) -> typer.Exit:
    typer.secho(f"Error: {wrong}", fg="red", bold=True, err=True)
    return typer.Exit(USAGE)


def _to_json(card: ModelCard, default: str) -> dict[str, Any]:
    return {**asdict(card), "default": card.name == default}


def _table(card: ModelCard, is_default: bool) -> Table:
    table = Table(
        title=escape(f"{card.name} {card.version}{' (default)' if is_default else ''}"),
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "task": card.task,
        **({"warning": f"{GENERATIVE}; runs with --allow-gan alone"} if card.generative else {}),
        **({"origin": card.origin} if card.origin else {}),
        "what it is": card.summary,
        "intended use": card.intended_use,
        "takes": _takes(card),
        **({"default score": f"{card.default_min_score:g}"} if card.task == "detection" else {}),
        "trained on": card.trained_on,
        "licence": card.licence,
        **{name.replace("_", " "): _figure(value) for name, value in card.figures.items()},
    }
    for name, value in rows.items():
        table.add_row(escape(name), escape(value))
    table.add_row("", "")
    return table


def _takes(card: ModelCard) -> str:
    takes = card.input
    if not takes.channels:
        return "no image, only a seed"
    several = (
        f"{len(takes.channels)} images on one grid ({', '.join(takes.channels)}), " if len(takes.channels) > 1 else ""
    )
    if card.task == Job.MRI:
        return "k-space of Cartesian MR slices"
    extent = f", at least {takes.min_extent_mm:g} mm in all along each axis" if takes.min_extent_mm > 0 else ""
    spacing = f"voxels of at most {takes.max_spacing_mm:g} mm{extent}"
    return f"{several}{takes.modality} in {takes.unit or 'any unit'}, {spacing}"


def _details(card: ModelCard) -> dict[str, str]:
    """How an imported model is run, and what input a reconstruction model was trained for."""
    windows, answer = card.recipe.get("windows"), card.recipe.get("answer")
    rows = {
        "labels": ", ".join(f"{number} {name}" for number, name in card.labels.items()),
        "trained for": _figure({name: f"{low:g} to {high:g}" for name, (low, high) in card.ranges.items()}),
        "network": card.network,
        "its settings": _figure(card.settings),
        "preparation": "; ".join(_figure(step) for step in card.recipe.get("steps", ())),
        "windows": _figure(windows) if windows else "",
        "answer": _figure(answer) if answer else "",
    }
    return {title: value for title, value in rows.items() if value}


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_figure(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_figure, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
