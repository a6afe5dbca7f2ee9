"""Which side of the patient lies at which edge of the view, and which way up a scan hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomolens.core.hanging import OPPOSITE, Letters
from tomolens.core.kspace import NO_PLACE
from tomolens.napari_plugin.layers import AXIS_LETTERS, scans

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

PLANES = {"Axial": (0, 1, 2), "Coronal": (1, 0, 2), "Sagittal": (2, 0, 1)}
"""Orders of napari's axes (z, y, x) that hang a scan as radiologists do: the last two are rows and columns."""
_OBLIQUE_COSINE = 0.4
"""In a 3D view a letter is named where its axis makes a smaller angle than 66 degrees with the edge."""


def sides_of(layer: Image) -> tuple[str, str, str]:
    """The side of the patient that each of napari's world axes grows towards for a shown scan.

    It follows a layer that was scaled by a negative number, turned or transposed.
    """
    origin = np.asarray(layer.data_to_world((0, 0, 0)))
    steps = np.array([np.asarray(layer.data_to_world(step)) - origin for step in np.eye(3)])
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    letters = []
    for world in range(3):
        axis = int(np.abs(steps[:, world]).argmax())
        letters.append(AXIS_LETTERS[axis] if steps[axis, world] > 0 else OPPOSITE[AXIS_LETTERS[axis]])
    return letters[0], letters[1], letters[2]


def letters_of(viewer: Viewer) -> Letters | None:
    """The letters at the edges of the view; None without a scan, where two disagree or sides are unknown."""
    visible = [layer for layer in scans(viewer.layers) if layer.visible]
    sides = {sides_of(layer) for layer in visible}
    if len(sides) != 1 or any(NO_PLACE in step for layer in visible for step in layer.metadata["volume"].history):
        return None
    down, right = _edges_3d(viewer) if viewer.dims.ndisplay == 3 else _edges_2d(viewer)
    (named,) = sides
    right_side, bottom = _named(right, named), _named(down, named)
    left, top = ("".join(OPPOSITE[letter] for letter in edge) for edge in (right_side, bottom))
    return Letters(left=left, right=right_side, top=top, bottom=bottom)


def _edges_2d(viewer: Viewer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The world directions that point down and to the right on the screen."""
    vertical, horizontal = (str(way) for way in viewer.scene.camera.orientation2d)
    rows, columns = viewer.dims.displayed
    down, right = np.zeros(viewer.dims.ndim), np.zeros(viewer.dims.ndim)
    down[rows] = 1 if vertical == "down" else -1
    right[columns] = 1 if horizontal == "right" else -1
    return down, right


def _edges_3d(viewer: Viewer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    camera = viewer.scene.camera
    view, up = np.asarray(camera.view_direction), np.asarray(camera.up_direction)
    right = np.cross(view, up) if str(camera.handedness) == "right" else np.cross(up, view)
    edges = np.zeros((2, viewer.dims.ndim))
    edges[:, list(viewer.dims.displayed)] = -up, right
    return edges[0], edges[1]


def _named(direction: NDArray[np.float64], sides: tuple[str, str, str]) -> str:
    """The sides that a world direction points to, the nearest first: one letter on a slice, up to three in 3D."""
    cosines = direction[-3:]
    axes = [int(axis) for axis in np.argsort(-np.abs(cosines)) if abs(cosines[axis]) > _OBLIQUE_COSINE]
    return "".join(sides[axis] if cosines[axis] > 0 else OPPOSITE[sides[axis]] for axis in axes)


def hang_upright(viewer: Viewer) -> None:
    """Turn the view so that a coronal or sagittal slice has the head on top and a 3D view is not a mirror image.

    napari's camera has one orientation for all planes, with rows going down: right for an axial slice, whose rows go
    to the back, and head down for the others, whose rows go to the head.
    """
    shown = scans(viewer.layers)
    if not shown:
        return
    sides = sides_of(shown[0])
    displayed = tuple(axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order[-3:])
    if min(displayed) < 0:  # time or channel is among the displayed axes
        return
    vertical = "up" if sides[displayed[1]] == "S" else "down"
    viewer.scene.camera.orientation = (_depth(displayed, vertical), vertical, "right")


def _depth(displayed: tuple[int, ...], vertical: str) -> str:
    """The way of the axis across the view that keeps the patient's left and right in 3D.

    World axes (z, y, x) are LPS backwards, a left-handed set, and so are (away, down, right) on the screen.
    """
    even = np.linalg.det(np.eye(3)[list(displayed)]) > 0
    return "away" if even == (vertical == "down") else "towards"


def show_plane(viewer: Viewer, plane: str) -> None:
    """Show the axial, coronal or sagittal slices."""
    viewer.dims.ndisplay = 2
    viewer.dims.order = PLANES[plane]
