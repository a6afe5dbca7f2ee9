"""Save scans and findings from napari's File > Save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tomolens.napari_plugin import layers
from tomolens.napari_plugin.messages import reported


def write_volume_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer with its exact place in the patient, as the suffix says (npe2's single layer writer).

    Returns
    -------
    list of str
        The path, or nothing where the layer cannot be saved; the user has then been told why.
    """
    from tomolens.io.write import write_volume

    with reported():
        volume = layers.volume_in(data, attributes["metadata"], attributes["name"])
        return [str(write_volume(volume, path))]
    return []


def write_findings_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a points layer's findings, at the threshold that is set, as JSON or CSV; returns as `write_volume_layer`."""
    from tomolens.io.tables import write_table

    with reported():
        detection = layers.detection_in(data, attributes["metadata"], attributes["name"])
        return [str(write_table(detection, Path(path)))]
    return []
