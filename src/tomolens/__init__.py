"""Open-source AI reading of CT and MR with MONAI networks: nodules, structures, reconstruction; shown in napari.

Research use only; not a medical device. Importing this package loads neither torch nor Qt: each public name is loaded
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tomolens.core.errors import TomolensError as TomolensError
    from tomolens.core.finding import Detection as Detection
    from tomolens.core.finding import Finding as Finding
    from tomolens.core.grid import Grid as Grid
    from tomolens.core.kspace import KSpace as KSpace
    from tomolens.core.reconstruction import Reconstruction as Reconstruction
    from tomolens.core.reconstruction import ReconstructOptions as ReconstructOptions
    from tomolens.core.segmentation import Segmentation as Segmentation
    from tomolens.core.series import Series as Series
    from tomolens.core.volume import Volume as Volume
    from tomolens.io.dicom_series import find_series as find_series
    from tomolens.io.kspace import read_kspace as read_kspace
    from tomolens.io.read import read_volume as read_volume
    from tomolens.io.tables import read_detection as read_detection
    from tomolens.io.tables import write_detection as write_detection
    from tomolens.io.write import write_volume as write_volume
    from tomolens.models.detector import load_detector as load_detector
    from tomolens.models.reconstructor import load_reconstructor as load_reconstructor
    from tomolens.models.registry import list_models as list_models
    from tomolens.models.segmenter import load_segmenter as load_segmenter
    from tomolens.phantoms.chest import sample_chest_ct as sample_chest_ct
    from tomolens.pipelines.detect_nodules import DetectOptions as DetectOptions
    from tomolens.pipelines.detect_nodules import detect_nodules as detect_nodules
    from tomolens.pipelines.reconstruct import reconstruct as reconstruct
    from tomolens.pipelines.segment import segment as segment

__version__ = version("tomolens")

_HOME = {
    "DetectOptions": "pipelines.detect_nodules",
    "Detection": "core.finding",
    "Finding": "core.finding",
    "Grid": "core.grid",
    "KSpace": "core.kspace",
    "ReconstructOptions": "core.reconstruction",
    "Reconstruction": "core.reconstruction",
    "Segmentation": "core.segmentation",
    "Series": "core.series",
    "TomolensError": "core.errors",
    "Volume": "core.volume",
    "detect_nodules": "pipelines.detect_nodules",
    "find_series": "io.dicom_series",
    "list_models": "models.registry",
    "load_detector": "models.detector",
    "load_reconstructor": "models.reconstructor",
    "load_segmenter": "models.segmenter",
    "read_detection": "io.tables",
    "read_kspace": "io.kspace",
    "read_volume": "io.read",
    "reconstruct": "pipelines.reconstruct",
    "sample_chest_ct": "phantoms.chest",
    "segment": "pipelines.segment",
    "write_detection": "io.tables",
    "write_volume": "io.write",
}

__all__ = [
    "DetectOptions",
    "Detection",
    "Finding",
    "Grid",
    "KSpace",
    "ReconstructOptions",
    "Reconstruction",
    "Segmentation",
    "Series",
    "TomolensError",
    "Volume",
    "detect_nodules",
    "find_series",
    "list_models",
    "load_detector",
    "load_reconstructor",
    "load_segmenter",
    "read_detection",
    "read_kspace",
    "read_volume",
    "reconstruct",
    "sample_chest_ct",
    "segment",
    "write_detection",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tomolens' has no attribute {name!r}")
    return getattr(import_module(f"tomolens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
