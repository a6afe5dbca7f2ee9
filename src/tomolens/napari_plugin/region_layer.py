"""Regions of interest: the rectangles and ellipses of a napari shapes layer, in the voxels of a scan's layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Shapes

from tomolens.core.errors import OptionError
from tomolens.physics.roi import Region

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image
    from numpy.typing import NDArray

NAME = "Regions"
COLOURS = ("#4cc9f0", "#f9c74f", "#90be6d", "#f78fb3")
"""Of the first regions, in turn."""
_SIDE_MM = 20.0
_LEAST_SIDE = 16
"""In pixels, so that a noise power spectrum can be made of a new region."""
_LINE_MM = 1.0
_TEXT: dict[str, Any] = {"string": "{region}", "size": 11, "anchor": "upper_left", "color": "white"}


def shapes_layer(viewer: Viewer) -> Shapes | None:
    """The shapes to measure in: the selected layer, else the topmost; None without."""
    shapes = [layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes)]
    active = viewer.layers.selection.active
    return active if active in shapes else next(iter(shapes), None)


def add_region(viewer: Viewer, image: Image) -> Shapes:
    """Draw one more square on the plane that is shown, in the middle of the view, to be dragged where it is wanted."""
    shapes = shapes_layer(viewer) or _new_layer(viewer, image)
    corners = _square(viewer, image, beside=len(shapes.data))
    world = np.array([image.data_to_world(corner) for corner in corners])
    shapes.add_rectangles(np.array([shapes.world_to_data(point) for point in world]))
    number(shapes)
    viewer.layers.selection.active = shapes
    shapes.mode = "select"
    shapes.selected_data = {len(shapes.data) - 1}
    return shapes


def number(shapes: Shapes) -> None:
    """Give the regions their numbers and colours, where they have changed."""
    numbers = [str(n + 1) for n in range(len(shapes.data))]
    if "region" not in shapes.features or list(shapes.features["region"]) != numbers:
        shapes.features = pd.DataFrame({"region": numbers})
        shapes.text = _TEXT
        if numbers:
            shapes.edge_color = [COLOURS[n % len(COLOURS)] for n in range(len(numbers))]


def regions_in(shapes: Shapes, image: Image) -> dict[int, Region]:
    """The regions by number, from 1, in the voxels of an image layer; shapes that are none are left out."""
    found: dict[int, Region] = {}
    for n, (corners, kind) in enumerate(zip(shapes.data, shapes.shape_type, strict=True), start=1):
        if str(kind) in ("rectangle", "ellipse"):
            kji = np.array([image.world_to_data(shapes.data_to_world(corner)) for corner in corners])
            region = _region(kji, image.data.shape, ellipse=str(kind) == "ellipse")
            found |= {} if region is None else {n: region}
    return found


def _region(kji: NDArray[np.float64], shape: tuple[int, int, int], *, ellipse: bool) -> Region | None:
    try:
        return Region.between(kji, shape, ellipse=ellipse)
    except OptionError:
        return None


def _new_layer(viewer: Viewer, image: Image) -> Shapes:
    place = {name: getattr(image, name) for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels")}
    shapes = Shapes(
        None,
        ndim=3,
        **place,
        affine=image.affine.affine_matrix,
        name=NAME,
        edge_width=_LINE_MM / min(image.scale),
        face_color="transparent",
        opacity=1.0,
    )
    viewer.add_layer(shapes)
    return shapes


def _square(viewer: Viewer, image: Image, beside: int) -> NDArray[np.float64]:
    """Corners of a square in voxels of the image, in the middle of the view, or beside those that are there."""
    rows, columns = (axis - (viewer.dims.ndim - 3) for axis in viewer.dims.displayed[-2:])
    point = np.array(viewer.dims.point[-3:], float)
    point[[rows, columns]] = viewer.scene.camera.center[-2:]
    middle = np.clip(np.round(image.world_to_data(point)), 0, np.array(image.data.shape) - 1)
    half = np.maximum(_SIDE_MM / np.asarray(image.scale), _LEAST_SIDE)[[rows, columns]] / 2
    middle[columns] += beside * 2.5 * half[1]
    corners = np.tile(middle, (4, 1))
    corners[:, rows] += half[0] * np.array([-1, -1, 1, 1])
    corners[:, columns] += half[1] * np.array([-1, 1, 1, -1])
    return corners
