"""What a bundle needs so that ``python -m monai.bundle run`` runs it: a configuration, and MONAI's words for tensors.

Tomolens itself never evaluates these: it reads ``configs/metadata.json`` as data. MONAI evaluates the few expressions
below when a MONAI user asks it to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tomolens.core.reconstruction import GENERATIVE, Job

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard

INFERENCE = "configs/inference.json"
DETECTION = "detection"
RUNNABLE = frozenset((DETECTION, *Job))
"""Tasks whose models run on a file by themselves; a second stage needs a detector's candidates."""

_HOW_TO_RUN = """## Run with MONAI

In the folder of this model, with Tomolens and MONAI's command line (`pip install fire`) installed:

```bash
python -m monai.bundle run --config_file configs/inference.json --image SCAN --output FOLDER{more}
```

{words}
"""
_DETECTED = """\
SCAN is a folder of DICOM files, or a NIfTI, NRRD or MetaImage file. `FOLDER/findings.json` and `FOLDER/findings.csv`
hold centre (patient coordinates, LPS mm), diameter in mm and score of each finding. `--device cpu` chooses the device,
`--min_score 0.3` another threshold."""
_OF_A_VOLUME = """\
SCAN is a folder of DICOM files, or a NIfTI, NRRD or MetaImage file. FOLDER then holds what
`tomolens reconstruct` writes: `reconstruction.nii.gz`, or of DICOM a derived series in `dicom/`; beside it what was
changed and how sure it is, and in `reconstruction.json` the checks of the input. `--device cpu` chooses the device,
"""
_OF_KSPACE = """\
SCAN is k-space: ISMRMRD or fastMRI (`.h5`), BART (`.cfl`) or `.npz`. FOLDER then holds what
`tomolens reconstruct` writes: `reconstruction.nii.gz`, beside it what was changed and how sure it is, and in
`reconstruction.json` the checks of the input. `--device cpu` chooses the device."""
_WORDS = {
    DETECTION: _DETECTED,
    Job.DENOISING: f"{_OF_A_VOLUME}`--strength 0.5` keeps half of the change.",
    Job.SUPER_RESOLUTION: f"{_OF_A_VOLUME}`--factor 3` how many slices one becomes, `--modality MR` says what an image "
    "file shows.",
    Job.MRI: _OF_KSPACE,
}
_INVENTED = f"\n`--allow_gan True` accepts that it is a {GENERATIVE}."


def how_to_run(card: ModelCard) -> str:
    """A section for the README of a bundle whose task is one of `RUNNABLE`."""
    more, warning = (" --allow_gan True", _INVENTED) if card.generative else ("", "")
    return _HOW_TO_RUN.format(more=more, words=_WORDS[card.task] + warning)


def inference_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``configs/inference.json`` of a bundle whose task is one of `RUNNABLE`, from its ``configs/metadata.json``."""
    section = metadata["tomolens"]
    return _detecting(section) if section["task"] == DETECTION else _reconstructing(section)


def _start(section: Mapping[str, Any], output: str, **options: Any) -> dict[str, Any]:
    """What every configuration begins with: places, options that a caller may set, and the network."""
    return {
        "bundle_root": ".",
        "image": "scan",
        "output": output,
        "device": "auto",
        **options,
        "network_def": {
            "_target_": "tomolens.models.networks.build",
            "name": section["network"],
            "settings": dict(section["settings"]),
        },
    }


def _detecting(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_start(section, "findings", min_score=None),
        "detector": {
            "_target_": "tomolens.models.detector.load_detector",
            "name": "@bundle_root",
            "device": "@device",
        },
        "preprocessing": {
            "_target_": "tomolens.io.read.read_volume",
            "source": "@image",
            "modality": section["input"]["modality"],
        },
        "options": {
            "_target_": "tomolens.pipelines.detect_nodules.DetectOptions",
            "min_score": "@min_score",
        },
        "inferer": {
            "_target_": "tomolens.pipelines.detect_nodules.detect_nodules",
            "volume": "@preprocessing",
            "model": "@detector",
            "options": "@options",
        },
        "postprocessing": {
            "_target_": "tomolens.io.tables.write_detection",
            "detection": "@inferer",
            "folder": "@output",
        },
        "run": ["$@postprocessing"],
    }


def _reconstructing(section: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_start(section, "reconstruction", strength=1.0, factor=None, allow_gan=False),
        "reconstructor": {
            "_target_": "tomolens.models.reconstructor.load_reconstructor",
            "name": "@bundle_root",
            "device": "@device",
        },
        **_reading(section),
        "options": {
            "_target_": "tomolens.core.reconstruction.ReconstructOptions",
            "strength": "@strength",
            "factor": "@factor",
            "generative": "@allow_gan",
        },
        "inferer": {
            "_target_": "tomolens.pipelines.reconstruct.reconstruct",
            "source": "@preprocessing",
            "model": "@reconstructor",
            "options": "@options",
        },
        "postprocessing": {
            "_target_": "tomolens.io.reconstructions.write_reconstruction",
            "reconstruction": "@inferer",
            "folder": "@output",
        },
        "run": ["$@postprocessing"],
    }


def _reading(section: Mapping[str, Any]) -> dict[str, Any]:
    """How the source is read; a model of CT and MR leaves it to the file, or to who calls, which of them it shows."""
    if section["task"] == Job.MRI:
        return {"preprocessing": {"_target_": "tomolens.io.kspace.read_kspace", "path": "@image"}}
    modality = section["input"]["modality"]
    return {
        "modality": None if " or " in modality else modality,
        "preprocessing": {"_target_": "tomolens.io.read.read_volume", "source": "@image", "modality": "@modality"},
    }


def network_data_format() -> dict[str, Any]:
    """MONAI's description of what a `CenterNet` takes and gives, for ``configs/metadata.json``."""
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": ["16*n", "16*n", "16*n"],
        "dtype": "float32",
        "value_range": [-1, 1],
        "is_patch_data": False,
        "channel_def": {"0": "-1000 to 400 HU as -1 to 1, 1 mm voxels, axes superior, posterior, left"},
    }
    answer = {
        "type": "object",
        "format": "centers",
        "num_channels": 5,
        "spatial_shape": ["4*n", "4*n", "4*n"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {
            "0": "logit of a nodule's centre in this 4 mm cell",
            "1": "offset of the centre along k, in cells",
            "2": "offset along j",
            "3": "offset along i",
            "4": "natural logarithm of the diameter in cells",
        },
    }
    return {"inputs": {"image": image}, "outputs": {"pred": answer}}
