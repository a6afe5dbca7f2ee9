"""What the commands that read every series below a folder have in common: their options, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from tomolens.cli.console import Narrator
from tomolens.cli.stopping import INTERRUPTED, orderly_stop
from tomolens.core.errors import ModelError, OptionError, TomolensError

if TYPE_CHECKING:
    from tomolens.cli.batch import Batch
    from tomolens.cli.summary import Summary

FAILED = 1
USAGE = 2

Source = Annotated[
    Path, typer.Argument(metavar="FOLDER_OR_FILE", exists=True, help="DICOM at any depth, or one image file.")
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if absent.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE", help="auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, cuda:N or openvino (extra)."
    ),
]
TiltWish = Annotated[
    Literal["keep", "resample"],
    typer.Option(help="A tilted gantry's slices: keep the sheared grid, or resample them onto a rectangular one."),
]
MissingWish = Annotated[
    Literal["refuse", "keep-largest"],
    typer.Option(help="Where slices are missing: refuse the series, or read the longest run without a gap."),
]
ModalityWish = Annotated[
    Literal["CT", "MR"] | None,
    typer.Option(help="What image files show; without it told from their numbers."),
]
Again = Annotated[bool, typer.Option("--again", help="Do finished series again too.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]


def run_batch(make: Callable[[Narrator], Batch[Any]], out: Path, dry_run: bool) -> NoReturn:
    """Run or rehearse a batch, say what came of it, and end with the exit code that the help texts name."""
    with told_ends("Stopped. What is finished stays; the same command goes on from here.") as narrator:
        batch = make(narrator)
        summary = batch.rehearse() if dry_run else batch.run()
    typer.echo(_told(summary, out, dry_run))
    raise typer.Exit(FAILED if summary.failed or not summary.found else 0)


@contextmanager
def told_ends(stopped: str) -> Iterator[Narrator]:
    """Give a narrator to some work; say what ended it, ``stopped`` where a person did, and exit with its code."""
    with orderly_stop(), Narrator() as narrator:
        try:
            yield narrator
        except (ModelError, OptionError) as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(USAGE) from wrong
        except (TomolensError, OSError) as wrong:
            narrator.say(f"Error: {wrong}", "bold red")
            raise typer.Exit(FAILED) from wrong
        except KeyboardInterrupt as interrupted:
            narrator.say(stopped)
            raise typer.Exit(INTERRUPTED) from interrupted


def _told(summary: Summary, out: Path, dry_run: bool) -> str:
    """The last line: how many of each, and where to look."""
    if not summary.found and summary.kspace:
        return "There is no image series here, but k-space: `tomolens reconstruct` makes images (mri-reconstruction)."
    if not summary.found:
        return "There is no image series here. `tomolens info` says what the files are."
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts().items() if count)
    return f"Would be: {counts}. Nothing was written." if dry_run else f"{counts}. See {out / 'index.html'}"
