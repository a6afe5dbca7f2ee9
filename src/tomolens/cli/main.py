"""The command line. It opens without torch: a command imports what it needs when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from tomolens.cli.detect import detect
from tomolens.cli.evaluate import evaluate_app
from tomolens.cli.info import info
from tomolens.cli.models import models_app
from tomolens.cli.reconstruct import reconstruct
from tomolens.cli.segment import segment
from tomolens.cli.simulate import simulate_app
from tomolens.cli.train import train_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, wrapped to the terminal and good to grep
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from tomolens import __version__

        typer.echo(f"tomolens {__version__}")
        raise typer.Exit


@app.callback()
def tomolens(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find lung nodules in chest CT, segment, reconstruct. Research use only; not a medical device.

    \b
      tomolens info scans/                 what is in a folder
      tomolens detect scans/ -o results/   findings as JSON, CSV, PNG and HTML
      tomolens segment scans/ -o labels/   labels as NIfTI, volumes, PNG and HTML
      tomolens reconstruct scans/ -o quiet/ --job ct-denoising   less noise
      tomolens simulate low-dose scan/ -o teaching/ --dose 0.25  for teaching
      tomolens models                      the models at hand
      tomolens evaluate                    how good results are, by LUNA16's rules

    The same functions serve napari (the plugin *Detect lung nodules*) and Python (`import tomolens`).
    """  # noqa: D301 - \b keeps typer from wrapping the examples


app.command(short_help="Find lung nodules in every CT series of a folder.")(detect)
app.command(short_help="Segment every series of a folder with a model of your choice.")(segment)
app.command(short_help="Denoise CT, make MR images of k-space, make thin slices.")(reconstruct)
app.command(short_help="Say what series are in a folder.")(info)
app.add_typer(models_app, name="models", short_help="List the models; import a MONAI bundle.")
app.add_typer(evaluate_app, name="evaluate", short_help="Say how good marks are (FROC, LUNA16).")
app.add_typer(simulate_app, name="simulate", short_help="Simulate low dose, undersampling, thick slices.")
app.add_typer(train_app, name="train", short_help="Train a model, publish a run.")
