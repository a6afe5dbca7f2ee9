"""Volumes, findings and segmentations as napari layers, and back: the only home of this conversion.

napari knows nothing of patients: it draws array axis -2 down and axis -1 to the right. So a scan is shown as
`Volume.canonical`, array axes (superior, posterior, left), whatever plane it was acquired in: the axial, coronal and
sagittal slices are those across axes 0, 1 and 2. Nothing is resampled; the layer's data are a view of the voxels.

World coordinates are the patient's (z, y, x) in mm, LPS, wherever the scan's axes are parallel to the patient's: the
numbers under the mouse are those of the findings table, and scans of one frame of reference lie on one another. An
oblique or tilted scan cannot be drawn so; it is shown in its own index frame, in mm from its first voxel. Findings are
placed through the index frame in both cases, so they are always on the voxels that they were found in.

A segmentation is a labels layer over the scan's layer, voxel on voxel.

The true `Volume`, with its own axes and grid, is kept in ``layer.metadata["volume"]``, a `Detection` in
``layer.metadata["detection"]`` and a `Segmentation` in ``layer.metadata["segmentation"]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from tomolens.core.errors import FindingError, GeometryError, SegmentationError
from tomolens.core.finding import Detection
from tomolens.core.label_picture import OPACITY, colour_of
from tomolens.core.picture import MARK_COLOUR, default_window
from tomolens.core.reconstruction import Job
from tomolens.core.segmentation import Segmentation
from tomolens.core.volume import Volume

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Layer, Points

    from tomolens.core.grid import Grid

LayerData = tuple[Any, dict[str, Any], str]
"""What napari calls a layer data tuple: data, attributes, type of layer."""

AXIS_LETTERS = ("S", "P", "L")
"""The side of the patient that each axis of a shown scan grows towards."""
_FRAME: dict[str, Any] = {"units": ("mm", "mm", "mm"), "axis_labels": ("z", "y", "x")}
_RING_MM = 0.6
_FARTHEST_LABEL_MM = 8.0
_SLACK = 1.05
"""A sphere of 1.05 slice distances is cut by at least one slice, rounding included."""


def image(volume: Volume) -> LayerData:
    """A volume as an image layer, windowed for its modality."""
    shown = volume.canonical()
    center, width = default_window(shown.voxels, volume.modality)
    attributes = {
        **_FRAME,
        "name": volume.name,
        "scale": shown.spacing_mm,
        "translate": _translate(shown.grid),
        "contrast_limits": (center - width / 2, center + width / 2),
        "interpolation2d": "linear",
        "metadata": {"volume": volume},
    }
    return shown.voxels, attributes, "image"


def findings(detection: Detection, scan: Image | None = None) -> LayerData:
    """A detection as a points layer: each finding a sphere of its diameter, with its number and score.

    On a slice each appears as the circle in which the slice cuts its sphere. A sphere thinner than the distance between
    slices is drawn that thick, so that no finding falls between two slices.

    Parameters
    ----------
    detection
        What was found.
    scan
        The image layer that it was found in, where it is open: findings follow a layer that was moved or turned.
    """
    scale = _points_scale_mm(detection)
    centers = _world([f.center_lps_mm for f in detection.candidates], detection.grid, scan) / scale
    attributes = {
        **_FRAME,
        **_RINGS,
        "name": f"Findings in {scan.name}" if scan is not None else "Findings",
        "ndim": 3,
        "scale": (scale,) * 3,
        "size": _sizes(detection),
        "border_width": _RING_MM / scale,
        "features": _features(detection),
        "text": {**_LABELS, "translation": _label_offset_mm(detection) / scale},
        "metadata": {"detection": detection, "candidates": centers, "scan": scan and scan.metadata["volume"]},
    }
    return centers[: len(detection)], attributes, "points"


def labels(segmentation: Segmentation, scan: Image | None = None) -> LayerData:
    """A segmentation as a labels layer, each label with its name and volume in the layer's features.

    Parameters
    ----------
    segmentation
        What was segmented. The layer's data are a view of its labels.
    scan
        The image layer that it was made of, where it is open: labels lie on a layer that was moved or turned.
    """
    from napari.utils.colormaps import DirectLabelColormap

    run, grid = segmentation.run, canonical(segmentation.grid)
    colours: dict[int | None, Any] = dict.fromkeys((None, 0), (0.0, 0.0, 0.0, 0.0))
    colours |= {label: (*colour_of(label), 1.0) for label in segmentation.names}
    place = {"scale": grid.spacing_mm, "translate": _translate(grid)} if scan is None else _place_of(scan)
    attributes = {
        **_FRAME,
        **place,
        "name": f"{run.model} in {scan.name}" if scan is not None else run.model,
        "opacity": OPACITY,
        "colormap": DirectLabelColormap(color_dict=colours),
        "features": _structures(segmentation),
        "metadata": {"segmentation": segmentation, "scan": scan and scan.metadata["volume"]},
    }
    return turned(segmentation.labels, segmentation.grid), attributes, "labels"


def _place_of(layer: Image) -> dict[str, Any]:
    names = ("scale", "translate", "rotate", "shear")
    return {**{name: getattr(layer, name) for name in names}, "affine": layer.affine.affine_matrix}


def _structures(segmentation: Segmentation) -> pd.DataFrame:
    """What the status bar says of the voxel under the mouse; napari takes ``index`` for the label."""
    table = segmentation.to_dataframe()[["label", "name"]].rename(columns={"label": "index"})
    return table.assign(volume=[f"{structure.volume_ml:.1f} ml" for structure in segmentation.structures])


_RINGS: dict[str, Any] = {
    "symbol": "disc",
    "face_color": "transparent",
    "border_color": MARK_COLOUR,
    "border_width_is_relative": False,
    "projection_mode": "rescale_spherical",
    "blending": "translucent_no_depth",
}
_LABELS: dict[str, Any] = {
    "string": "label",
    "color": MARK_COLOUR,
    "size": 11,
    "anchor": "upper_left",
    "blending": "translucent_no_depth",
}


def volume_of(layer: Image) -> Volume:
    """The volume that an image layer shows.

    Raises
    ------
    GeometryError
        If the layer does not know where it lies in the patient.
    """
    return volume_in(layer.data, layer.metadata, layer.name)


def volume_in(data: Any, metadata: Mapping[str, Any], name: str) -> Volume:
    """The volume in an image layer's data and metadata.

    Voxels that were changed since the scan was opened are taken as they are; the volume's history says so.

    Raises
    ------
    GeometryError
        If the metadata do not say where the voxels lie in the patient, or the data have another shape than they say.
    """
    volume = opened_volume(data, metadata, name)
    shown = volume.canonical().voxels
    if _same_memory(data, shown) or np.array_equal(data, shown):
        return volume
    return volume.with_voxels(_acquired(np.asarray(data), volume.grid), "voxels changed in napari")


def opened_volume(data: Any, metadata: Mapping[str, Any], name: str) -> Volume:
    """The volume that an image layer was opened with, whatever was done to its voxels since; raises as `volume_in`."""
    volume = metadata.get("volume")
    if not isinstance(volume, Volume):
        raise GeometryError(
            f"The layer '{name}' does not say where it lies in the patient: it was not opened by Tomolens."
            " Open the scan with File > Open and the reader Tomolens."
        )
    shape = volume.canonical().shape
    if data.shape != shape:
        raise GeometryError(
            f"The layer '{name}' has {data.shape} voxels where its scan has {shape}: it was cropped or resampled"
            " since it was opened, so its place in the patient is not known. Open the scan again."
        )
    return volume


def detection_of(layer: Points) -> Detection:
    """The detection that a points layer shows, at the threshold that is set.

    Raises
    ------
    FindingError
        If the layer holds no detection, or its points were added, moved or removed by hand.
    """
    return detection_in(layer.data, layer.metadata, layer.name)


def detection_in(data: NDArray[Any], metadata: Mapping[str, Any], name: str) -> Detection:
    """The detection in a points layer's data and metadata; raises as `detection_of`."""
    detection = metadata.get("detection")
    if not isinstance(detection, Detection):
        raise FindingError(f"The layer '{name}' holds no findings of Tomolens: run Detect lung nodules first.")
    if not np.array_equal(data, metadata["candidates"][: len(detection)]):
        raise FindingError(
            f"The points of the layer '{name}' are not the {len(detection)} findings that were made: some were added,"
            " moved or removed by hand. Delete the layer and run Detect lung nodules again."
        )
    return detection


def segmentation_in(data: NDArray[Any], metadata: Mapping[str, Any], name: str) -> Segmentation:
    """The segmentation in a labels layer's data and metadata.

    Raises
    ------
    SegmentationError
        If the layer holds none, or its labels were changed by hand.
    """
    segmentation = metadata.get("segmentation")
    if not isinstance(segmentation, Segmentation):
        raise SegmentationError(f"The layer '{name}' holds no segmentation of Tomolens: run Segment first.")
    shown = turned(segmentation.labels, segmentation.grid)
    if not (_same_memory(data, shown) or np.array_equal(data, shown)):
        raise SegmentationError(
            f"The labels of the layer '{name}' are not those that were made: they were changed by hand. "
            "Delete the layer and run Segment again."
        )
    return segmentation


def set_threshold(layer: Points, min_score: float) -> Detection:
    """Show the findings that reach another threshold, without running again."""
    detection = detection_of(layer).at(min_score)
    layer.metadata["detection"] = detection
    layer.data = layer.metadata["candidates"][: len(detection)]  # `shown` would do, but 3D views ignore it
    layer.features = _features(detection)
    layer.size = _sizes(detection)
    return detection


def center_of(layer: Points, index: int) -> tuple[float, float, float]:
    """Centre of the finding ``index`` (from 0, surest first) in napari's world coordinates."""
    z, y, x = (float(value) for value in layer.data_to_world(layer.data[index]))
    return z, y, x


def middle_of(layer: Labels, label: int) -> tuple[float, float, float]:
    """A voxel in the middle of a segmented structure, in napari's world coordinates."""
    segmentation: Segmentation = layer.metadata["segmentation"]
    grid = segmentation.grid
    shown = canonical(grid).to_kji(grid.to_mm(segmentation.middle_kji(label)))
    z, y, x = (float(value) for value in layer.data_to_world(np.round(shown)))
    return z, y, x


def scans(layers: Iterable[Layer]) -> list[Image]:
    """The image layers that Tomolens opened, topmost first; not the slices or labels that napari makes of one."""
    images = [layer for layer in reversed(list(layers)) if isinstance(layer, Image) and layer.ndim == 3]
    return [layer for layer in images if isinstance(layer.metadata.get("volume"), Volume)]


def findings_in(layers: Iterable[Layer]) -> list[Points]:
    """The points layers that hold a detection, topmost first."""
    return [layer for layer in reversed(list(layers)) if isinstance(layer.metadata.get("detection"), Detection)]


def segmentations_in(layers: Iterable[Layer]) -> list[Labels]:
    """The labels layers that hold a segmentation, topmost first; not what napari made of one."""
    labels = [layer for layer in reversed(list(layers)) if isinstance(layer, Labels) and layer.ndim == 3]
    return [layer for layer in labels if isinstance(layer.metadata.get("segmentation"), Segmentation)]


def segmentation_of(layers: Iterable[Layer], volume: Volume, model: str) -> Labels | None:
    """The topmost segmentation that a model made of this scan, else of a copy of the same series; None without."""
    made = [s for s in segmentations_in(layers) if s.metadata["segmentation"].run.model == model]
    made_here = [layer for layer in made if layer.metadata.get("scan") is volume]
    return next(iter(made_here or [layer for layer in made if is_of(layer.metadata["segmentation"], volume)]), None)


def findings_of(layers: Iterable[Layer], volume: Volume) -> Points | None:
    """The topmost findings that were made in this scan, else in another copy of the same series; None without."""
    found = findings_in(layers)
    made_here = [layer for layer in found if layer.metadata.get("scan") is volume]
    return next(iter(made_here or [layer for layer in found if is_of(layer.metadata["detection"], volume)]), None)


def is_of(result: Detection | Segmentation, volume: Volume) -> bool:
    """Whether a result says that it was made of this volume, or of another copy of the same series.

    A volume without SeriesInstanceUID is taken for the same only where the result was read from a file and the grids
    coincide: two volumes in memory may well share a grid. A reconstruction of a scan is not that scan.
    """
    uid = volume.series.uid if volume.series else ""
    comparable = bool(uid) or result.volume is None
    same = result.run.series_uid == uid and _remade(result.run.history) == _remade(volume.history)
    return comparable and same and result.grid.same_place(volume.grid)


def _remade(history: tuple[str, ...]) -> list[str]:
    """The steps of a history that made another image of the same scan."""
    return [step for step in history if step.startswith(tuple(f"{job} by " for job in Job))]


def is_in_patient_frame(grid: Grid) -> bool:
    """Whether the grid's axes are so parallel to the patient's that no voxel is drawn half a voxel off."""
    shown = canonical(grid)
    corner = np.asarray(shown.shape) - 1
    drawn = _translate_of(shown) + corner * shown.spacing_mm
    return bool(np.abs(shown.to_mm(corner)[::-1] - drawn).max() <= min(shown.spacing_mm) / 2)


def canonical(grid: Grid) -> Grid:
    """What `Volume.canonical` does, for a grid alone."""
    order, flips = grid.canonical_order
    grid = grid.permuted(order)
    for axis in np.flatnonzero(flips):
        grid = grid.flipped(int(axis))
    return grid


def turned(voxels: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """What `Volume.canonical` does, for bare voxels: a view, axes (superior, posterior, left)."""
    order, flips = grid.canonical_order
    return voxels.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _translate_of(shown: Grid) -> NDArray[np.float64]:
    return np.flip(shown.to_mm((0, 0, 0)))


def _translate(shown: Grid) -> tuple[float, float, float]:
    """Where the first voxel of a shown grid lies in napari's world: (z, y, x) in mm, or 0 in an index frame."""
    z, y, x = _translate_of(shown) if is_in_patient_frame(shown) else (0.0, 0.0, 0.0)
    return float(z), float(y), float(x)


def _world(points_lps_mm: list[tuple[float, float, float]], grid: Grid, scan: Image | None) -> NDArray[np.float64]:
    """(n, 3) LPS points as napari world coordinates, through the index frame of the shown scan."""
    shown = canonical(grid)
    indices = shown.to_kji(np.asarray(points_lps_mm, float).reshape(-1, 3))
    if scan is None:
        return np.asarray(indices * shown.spacing_mm + _translate(shown))
    return np.array([scan.data_to_world(index) for index in indices]).reshape(-1, 3)


def _features(detection: Detection) -> pd.DataFrame:
    table = detection.to_dataframe()[["finding", "score", "diameter_mm"]]
    labels = [f"{number}: {finding.score:.2f}" for number, finding in enumerate(detection, start=1)]
    return table.assign(label=np.array(labels, object))


def _label_offset_mm(detection: Detection) -> NDArray[np.float64]:
    """How far labels stand from the centres along (z, y, x): off the edge of the largest finding, if it is not huge.

    napari draws them above and right of there: on an axial slice only x, not y, which grows downwards, clears the edge.
    """
    largest = max((f.diameter_mm for f in detection.findings), default=0.0)
    return np.minimum(np.array([0.36, 0.36, 0.5]) * largest + 1, _FARTHEST_LABEL_MM)


def _points_scale_mm(detection: Detection) -> float:
    """The length of one unit of the points layer, the same along all axes, so that spheres are round.

    napari looks half a unit to either side of a slice for points, so a unit is the largest sphere's diameter. A wider
    margin of the viewer would do too, but it would blend the slices of every image in it. A unit is never less than the
    coarsest spacing, so that the sliders keep the scan's steps.
    """
    diameters = (f.diameter_mm for f in detection.candidates)
    return _SLACK * max(*detection.grid.spacing_mm, *diameters)


def _sizes(detection: Detection) -> NDArray[np.float64]:
    """Diameters in units of the layer."""
    thinnest = _SLACK * max(detection.grid.spacing_mm)
    diameters = np.array([f.diameter_mm for f in detection.findings], float)
    return np.asarray(np.maximum(diameters, thinnest) / _points_scale_mm(detection))


def _same_memory(data: Any, shown: NDArray[Any]) -> bool:
    return bool(getattr(data, "__array_interface__", None) == shown.__array_interface__)


def _acquired(data: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """The inverse of `_turned`."""
    order, flips = grid.canonical_order
    turned = data[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return turned.transpose(order.index(0), order.index(1), order.index(2))
