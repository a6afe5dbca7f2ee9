"""What a bundle needs so that ``python -m monai.bundle run`` runs it: a configuration, and MONAI's words for tensors.

Tomolens itself never evaluates these: it reads ``configs/metadata.json`` as data. MONAI evaluates the few expressions
below when a MONAI user asks it to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INFERENCE = "configs/inference.json"
HOW_TO_RUN = """## Run with MONAI

In the folder of this model, with Tomolens and MONAI's command line (`pip install fire`) installed:

```bash
python -m monai.bundle run --config_file configs/inference.json --image SCAN --output FOLDER
```

SCAN is a folder of DICOM files, or a NIfTI, NRRD or MetaImage file. `FOLDER/findings.json` and `FOLDER/findings.csv`
hold centre (patient coordinates, LPS mm), diameter in mm and score of each finding. `--device cpu` chooses the device,
`--min_score 0.3` another threshold.
"""
"""A section for the README of a detector's bundle."""


def inference_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``configs/inference.json`` of a detector's bundle, from its ``configs/metadata.json``."""
    section = metadata["tomolens"]
    return {
        "bundle_root": ".",
        "image": "scan",
        "output": "findings",
        "device": "auto",
        "min_score": None,
        "network_def": {
            "_target_": "tomolens.models.networks.build",
            "name": section["network"],
            "settings": dict(section["settings"]),
        },
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
