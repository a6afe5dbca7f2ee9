"""Save scans, findings and segmentations from napari's File > Save; napari shows what is refused."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tomolens.core.errors import OutputError, TomolensError
from tomolens.core.reconstruction import is_invented
from tomolens.napari_plugin import layers, messages
from tomolens.napari_plugin.reconstruction_layers import saved_volume


def write_volume_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer with its exact place in the patient, as the suffix says (npe2's single layer writer).

    Before what a GAN made is saved, also through a later step, the user is asked.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    OutputError
        If the layer does not know its place, the format cannot hold its grid, the file cannot be written, or the user
        does not want to save what a GAN made.
    """
    from tomolens.io.write import write_volume

    name = attributes["name"]
    with _as_output_error():
        volume = saved_volume(data, attributes["metadata"], name)
        if is_invented(volume.history) and not messages.accepts_invented(name):
            raise OutputError(f"{name} was not saved.")
        return [str(write_volume(volume, path))]


def write_findings_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a points layer's findings, at the threshold that is set, as JSON or CSV (npe2's single layer writer).

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    OutputError
        If the points are not findings or not those that were made, or the file cannot be written.
    """
    from tomolens.io.tables import write_table

    with _as_output_error():
        detection = layers.detection_in(data, attributes["metadata"], attributes["name"])
        return [str(write_table(detection, path))]


def write_segmentation_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a segmentation's labels on the scan's own grid, as the suffix says (npe2's single layer writer).

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    OutputError
        If the layer is no segmentation or not the one that was made, the format cannot hold its grid, or the file
        cannot be written.
    """
    from tomolens.io.segmentations import label_volume
    from tomolens.io.write import write_volume

    with _as_output_error():
        segmentation = layers.segmentation_in(data, attributes["metadata"], attributes["name"])
        return [str(write_volume(label_volume(segmentation), path))]


@contextmanager
def _as_output_error() -> Generator[None]:
    """Raise what napari lets through: it takes a ValueError for "not my format" and drops its text."""
    try:
        yield
    except TomolensError as error:
        raise OutputError(str(error)) from error
