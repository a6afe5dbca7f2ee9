"""Small generated scans on disk, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.synthetic_series import write_ct_series, write_mr_series
from tomolens.phantoms.markers import marked_volume

GRID = Grid.from_axes((16, 24, 28), (2.5, 1.5, 1.5), (-20.0, -18.0, -300.0))
PATIENT = {"PatientName": "Doe^Jane", "PatientBirthDate": "19420229", "PatientID": "MRN-4711"}


def ct(folder: Path, seed: int = 0, description: str = "Thorax 1.0", **header: object) -> Path:
    """A good CT series of a patient with a name."""
    write_ct_series(
        marked_volume(GRID),
        folder,
        seed=seed,
        jpeg_ls=False,
        file_name=f"{seed}-{{:04d}}.dcm",
        header={"SeriesDescription": description, **PATIENT, **header},
    )
    return folder


def ct_with_a_gap(folder: Path, seed: int = 1) -> Path:
    """A CT series without its eighth slice."""
    ct(folder, seed, "Gap")
    (folder / f"{seed}-0008.dcm").unlink()
    return folder


def ct_cut_short(folder: Path, seed: int = 2) -> Path:
    """A CT series with a good header and half the pixels of one slice."""
    ct(folder, seed, "Cut")
    file = folder / f"{seed}-0005.dcm"
    file.write_bytes(file.read_bytes()[:-600])
    return folder


def mr(folder: Path, seed: int = 3) -> Path:
    """A good MR series."""
    voxels = np.arange(np.prod(GRID.shape), dtype=np.float32).reshape(GRID.shape) % 1000
    volume = Volume(voxels, GRID, Unit.ARBITRARY, "MR")
    names = f"{seed}-{{:04d}}.dcm"
    write_mr_series(
        volume, folder, seed=seed, jpeg_ls=False, file_name=names, header={"SeriesDescription": "T2", **PATIENT}
    )
    return folder


def scout(folder: Path, seed: int = 4) -> Path:
    """A CT localizer of one image."""
    volume = marked_volume(GRID).cropped((0, 0, 0), (1, 24, 28))
    write_ct_series(
        volume,
        folder,
        seed=seed,
        jpeg_ls=False,
        header={"SeriesDescription": "Topogram", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )
    return folder
