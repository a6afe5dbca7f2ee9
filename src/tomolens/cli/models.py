"""`tomolens models`: what models there are, what they take and how good they were measured to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON for another program.")] = False,
) -> None:
    """List the models that ship with Tomolens: what each takes, its licence and its measured figures.

    `tomolens detect --model NAME` takes one of them, or the folder of a model of your own.
    """
    from tomolens.models.registry import DEFAULT_DETECTOR, list_models

    cards = list_models()
    if as_json:
        typer.echo(json.dumps([_to_json(card, DEFAULT_DETECTOR) for card in cards], indent=2))
        return
    console = Console(highlight=False)
    for card in cards:
        console.print(_table(card, card.name == DEFAULT_DETECTOR))


def _to_json(card: ModelCard, default: str) -> dict[str, Any]:
    return {**asdict(card), "default": card.name == default}


def _table(card: ModelCard, is_default: bool) -> Table:
    table = Table(
        title=f"{card.name} {card.version}{' (default)' if is_default else ''}",
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    takes = card.input
    rows = {
        "task": card.task,
        "what it is": card.summary,
        "intended use": card.intended_use,
        "takes": f"{takes.modality} in {takes.unit}, voxels of at most {takes.max_spacing_mm:g} mm, "
        f"at least {takes.min_extent_mm:g} mm along each axis",
        "default score": f"{card.default_min_score:g}",
        "trained on": card.trained_on,
        "licence": card.licence,
        **{name.replace("_", " "): _figure(value) for name, value in card.figures.items()},
    }
    for name, value in rows.items():
        table.add_row(name, value)
    table.add_row("", "")
    return table


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_figure(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_figure, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
