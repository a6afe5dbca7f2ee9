"""`tomolens simulate`: scans as they might have been with less dose, fewer lines of k-space or thicker slices."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tomolens.cli.every_series import Out, told_ends

if TYPE_CHECKING:
    from tomolens.core.kspace import KSpace
    from tomolens.core.progress import Progress
    from tomolens.core.volume import Volume

SIMULATED = "SIMULATED"
"""Opens every file's name and series description."""

Source = Annotated[
    Path, typer.Argument(metavar="SCAN", exists=True, help="A folder that holds one series, or one image file.")
]
SeriesUid = Annotated[str | None, typer.Option(metavar="UID", help="Which series, where the folder holds several.")]
Seed = Annotated[int, typer.Option(min=0, help="Of what is random: the same call simulates the same.")]

simulate_app = typer.Typer(
    no_args_is_help=True,
    help="Simulate low dose, undersampled k-space or thick slices, for teaching and for tests.\n\n"
    "Nothing that is simulated was measured: file names and series descriptions begin with SIMULATED, and the history "
    "says what was done. DICOM gives a derived DICOM series, which holds the patient's name and ID as its source does.",
)


@dataclass(frozen=True)
class _Simulation:
    """What is done to a scan, e.g. ``low dose 0.25``, and the nearest derivation of DICOM's (a key of its CODES).

    ``settings`` is all that decides the result beside the scan; ``told`` what file names say of it.
    """

    source: Path
    out: Path
    series_uid: str | None
    name: str
    code: str
    work: Callable[[Volume, Progress], Volume | KSpace]
    settings: Mapping[str, object]
    told: str = ""


@simulate_app.command(short_help="A CT as if it had been scanned with less dose.")
def low_dose(
    source: Source,
    out: Out,
    dose: Annotated[float, typer.Option(min=0, max=1, help="Share of the scan's own dose, e.g. 0.25.")],
    kernel: Annotated[
        Literal["soft", "sharp", "ram-lak"], typer.Option(help="The kernel that the scan was reconstructed with.")
    ] = "soft",
    seed: Seed = 0,
    series_uid: SeriesUid = None,
) -> None:
    """Add the noise of a lower dose to a CT: photons and electronics, filtered and projected back.

    \b
    Example:
      tomolens simulate low-dose scan/ -o teaching/ --dose 0.25
    """  # noqa: D301 - \b keeps typer from wrapping the example

    def work(volume: Volume, progress: Progress) -> Volume:
        from tomolens.physics.low_dose import low_dose as simulated

        return simulated(volume, dose, kernel, seed=seed, progress=progress)

    settings = {"dose": dose, "kernel": kernel, "seed": seed}
    told = f"{kernel} seed {seed}"
    _run(_Simulation(source, out, series_uid, f"low dose {dose:g}", "addition", work, settings, told))


@simulate_app.command(short_help="The k-space that might have been measured of an MR image.")
def undersampled(
    source: Source,
    out: Out,
    acceleration: Annotated[float, typer.Option(min=1, help="How many times fewer places are measured.")] = 4.0,
    coils: Annotated[int, typer.Option(min=1, help="Invented receiver coils.")] = 8,
    mask: Annotated[
        Literal["random", "equispaced", "poisson-disc"], typer.Option(help="Which places are measured.")
    ] = "equispaced",
    noise: Annotated[
        float, typer.Option(min=0, help="Standard deviation, as a share of the image's 99th percentile.")
    ] = 0.01,
    seed: Seed = 0,
    series_uid: SeriesUid = None,
) -> None:
    """Make undersampled k-space of a magnitude image. Its phase and coils are invented, its errors optimistic.

    \b
    Example:
      tomolens simulate undersampled brain.nii.gz -o teaching/ --acceleration 4
    """  # noqa: D301 - \b keeps typer from wrapping the example

    def work(volume: Volume, progress: Progress) -> KSpace:
        from tomolens.physics.masks import MaskKind
        from tomolens.physics.undersampling import simulated_kspace

        return simulated_kspace(volume, coils, acceleration, MaskKind(mask), noise, seed)

    settings = {"acceleration": acceleration, "coils": coils, "mask": mask, "noise": noise, "seed": seed}
    told = f"{mask} {coils} coils noise {noise:g} seed {seed}"
    _run(_Simulation(source, out, series_uid, f"undersampled {acceleration:g}x", "", work, settings, told))


@simulate_app.command(short_help="A scan as if its slices had been thicker.")
def thick_slices(
    source: Source,
    out: Out,
    factor: Annotated[int, typer.Option(min=2, max=5, help="How many slices make a thick one.")] = 3,
    series_uid: SeriesUid = None,
) -> None:
    """Average neighbouring slices.

    \b
    Example:
      tomolens simulate thick-slices scan/ -o teaching/ --factor 3
    """  # noqa: D301 - \b keeps typer from wrapping the example

    def work(volume: Volume, progress: Progress) -> Volume:
        from tomolens.physics.slices import thick

        return thick(volume, factor)

    _run(_Simulation(source, out, series_uid, f"thick slices {factor}", "mean", work, {"factor": factor}))


def _run(simulation: _Simulation) -> None:
    from tomolens.core.errors import OptionError
    from tomolens.core.progress import Step
    from tomolens.io.read import read_volume

    with told_ends("Stopped. Nothing was written.") as narrator:
        if simulation.out.is_file():
            raise OptionError(f"{simulation.out} is a file; -o takes a folder.")
        volume = read_volume(simulation.source, series_uid=simulation.series_uid, progress=narrator.step)
        made = simulation.work(volume, narrator.step)
        narrator.step(Step("write", 0, 0))
        written = _write(simulation, made)
    typer.echo(f"{written}  ({made.history[-1]})")


def _write(simulation: _Simulation, made: Volume | KSpace) -> Path:
    """Write what was simulated: k-space as npz, a DICOM series as one, anything else as NIfTI."""
    from tomolens.core.kspace import KSpace
    from tomolens.io.kspace import write_kspace
    from tomolens.io.write import write_volume

    stem = "-".join(filter(None, _stem(simulation)))
    if isinstance(made, KSpace):
        simulation.out.mkdir(parents=True, exist_ok=True)
        return write_kspace(made, simulation.out / f"{stem}.npz")
    if made.series is None:
        return write_volume(made, simulation.out / f"{stem}.nii.gz")
    return _write_series(simulation, made, simulation.out / stem)


def _stem(simulation: _Simulation) -> tuple[str, ...]:
    """What was done to what; a hash tells scans of one name, series of one folder and settings in full precision."""
    source = simulation.source.resolve()
    decided = f"{source} {simulation.series_uid or ''} {dict(simulation.settings)}"
    digest = sha256(decided.encode(errors="surrogateescape")).hexdigest()[:8]
    return SIMULATED, _slug(simulation.name), _slug(simulation.told), _slug(source.name.partition(".")[0]), digest


def _write_series(simulation: _Simulation, made: Volume, folder: Path) -> Path:
    from tomolens.io.atomic import whole_folder
    from tomolens.io.dicom_derived import Derivation, write_derived_series

    derivation = Derivation(f"{SIMULATED} {simulation.name}", simulation.code, made.history[-1])
    with whole_folder(folder) as temporary:
        write_derived_series(made, temporary, derivation)
    return folder


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
