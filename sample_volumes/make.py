"""Generate the sample volumes and the truth about them.

    python sample_volumes/make.py                 what is absent
    python sample_volumes/make.py --force         everything anew
    python sample_volumes/make.py --only brain_mr

Everything is drawn from fixed seeds: the same voxels every time. README.md says what each file is.
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.io.atomic import whole_file, whole_folder
from tomolens.io.synthetic_series import write_ct_series, write_mr_series
from tomolens.io.write import write_volume
from tomolens.phantoms.brain import sample_brain
from tomolens.phantoms.chest import sample_chest, sample_lungs
from tomolens.phantoms.kspace import brain_kspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tomolens.core.volume import Volume
    from tomolens.phantoms.chest import ChestPhantom

CHEST_STEP_HU = 8
"""The sample CTs are in multiples of this."""
KSPACE_STEP = 2.0
"""K-space is stored in multiples of this; its noise is 6."""


def chest_ct(folder: Path) -> None:
    """Write an unenhanced chest as a DICOM series, and its truth."""
    chest = sample_chest()
    header = {"SeriesDescription": "Chest phantom 1.8 mm"}
    with whole_folder(folder / "chest_ct") as series:
        write_ct_series(chest.volume, series, seed=14, study=14, slope=CHEST_STEP_HU, header=header)
    _write_truth(folder / "chest_ct.json", {"dicom": "chest_ct", **_chest_truth(chest)})


def lungs_ct(folder: Path) -> None:
    """Write the lungs of another patient, after contrast agent, as NIfTI, and their truth."""
    chest = sample_lungs()
    write_volume(chest.volume, folder / "lungs_ct.nii.gz")
    _write_truth(folder / "lungs_ct.json", {"nifti": "lungs_ct.nii.gz", **_chest_truth(chest)})


def brain_mr(folder: Path) -> None:
    """Write a head as axial NIfTI and as a sagittal DICOM series of the same voxels, and its truth."""
    brain = sample_brain()
    write_volume(brain.volume, folder / "brain_mr.nii.gz")
    sagittal = brain.volume.permuted((2, 0, 1)).flipped(1)
    with whole_folder(folder / "brain_mr") as series:
        write_mr_series(sagittal, series, seed=3, study=3, header={"SeriesDescription": "Brain phantom T1 sagittal"})
    lesions = [lesion.to_dict() for lesion in brain.lesions]
    files = {"nifti": "brain_mr.nii.gz", "dicom": "brain_mr"}
    _write_truth(folder / "brain_mr.json", {**files, **_volume_truth(brain.volume), "lesions": lesions})


def brain_kspace_npz(folder: Path) -> None:
    """Write fully sampled multi-coil k-space of four slices with the true image."""
    measured = brain_kspace(3)
    parts = np.stack([measured.kspace.real, measured.kspace.imag], axis=-1)
    content = {
        "kspace": np.rint(parts / KSPACE_STEP).astype(np.int16),
        "kspace_step": np.float32(KSPACE_STEP),
        "image": measured.image.astype(np.float16),
        "spacing_mm": np.asarray(measured.spacing_mm, np.float32),
    }
    with whole_file(folder / "brain_kspace.npz") as temporary:
        np.savez_compressed(temporary, **content)


SAMPLES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "chest_ct": (chest_ct, ("chest_ct", "chest_ct.json")),
    "lungs_ct": (lungs_ct, ("lungs_ct.nii.gz", "lungs_ct.json")),
    "brain_mr": (brain_mr, ("brain_mr.nii.gz", "brain_mr", "brain_mr.json")),
    "brain_kspace": (brain_kspace_npz, ("brain_kspace.npz",)),
}
"""What makes each sample, and the files that it makes."""


def make(folder: Path, names: Sequence[str] = tuple(SAMPLES), force: bool = False) -> list[str]:
    """Write the samples of which a file is absent; give their names."""
    written = []
    for name in names:
        write, files = SAMPLES[name]
        if force or not all((folder / file).exists() for file in files):
            write(folder)
            written.append(name)
    return written


def _chest_truth(chest: ChestPhantom) -> dict[str, Any]:
    return {
        **_volume_truth(chest.volume),
        "nodules": [_rounded(nodule.to_dict()) for nodule in chest.nodules],
        "look_alikes": [_rounded(mark.to_dict()) for mark in chest.look_alikes],
    }


def _volume_truth(volume: Volume) -> dict[str, Any]:
    return {
        "about": "Generated. No patient. Places are in mm, DICOM's LPS: +x left, +y posterior, +z superior.",
        "history": list(volume.history),
        "shape_kji": list(volume.shape),
        "spacing_kji_mm": [round(step, 6) for step in volume.spacing_mm],
        "voxels_sha256": hash_of(volume.voxels),
    }


def hash_of(voxels: NDArray[Any]) -> str:
    """SHA-256 of voxels as little-endian int16."""
    return sha256(np.ascontiguousarray(voxels, "<i2").tobytes()).hexdigest()


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 3)
        return [round(v, 3) for v in value] if isinstance(value, tuple) else value

    return {name: plain(value) for name, value in values.items()}


def _write_truth(path: Path, truth: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description="Generate the sample volumes.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent, help="where to; default here")
    parser.add_argument("--force", action="store_true", help="write also what is there")
    parser.add_argument("--only", choices=list(SAMPLES), action="append", help="just this one; may be repeated")
    wish = parser.parse_args()
    written = make(wish.folder, wish.only or list(SAMPLES), wish.force)
    print(f"{wish.folder}: wrote {', '.join(written) or 'nothing, all is there'}")


if __name__ == "__main__":
    main()
