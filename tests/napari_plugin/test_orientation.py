"""The letters at the edges are those of the balls that the screen shows there."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from napari.layers import Layer

from tests.napari_plugin.scans import ACQUIRED, scan
from tomolens.core.kspace import NO_PLACE
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.hanging import hang
from tomolens.napari_plugin.orientation import PLANES, letters_of, show_plane
from tomolens.phantoms.markers import MARKER_HU

pytestmark = pytest.mark.gui


@pytest.fixture
def viewer(shown_viewer):
    return shown_viewer


WHITE_HU = 850.0
UPRIGHT = {
    "Axial": {"left": "R", "right": "L", "top": "A", "bottom": "P"},
    "Coronal": {"left": "R", "right": "L", "top": "S", "bottom": "I"},
    "Sagittal": {"left": "A", "right": "P", "top": "S", "bottom": "I"},
}


def show(viewer, volume):
    """Only the scan is left on the canvas, each ball in a grey of its own."""
    hang(viewer)
    image = viewer.add_layer(Layer.create(*layers.image(volume)))
    image.interpolation2d = image.interpolation3d = "nearest"
    image.contrast_limits = (0, WHITE_HU)
    return image


def written(viewer):
    """The letters as they stand on the canvas."""
    overlays = viewer.canvas.overlays
    return {edge: overlays[f"tomolens_{edge}"].text for edge in ("left", "right", "top", "bottom")}


def balls_on_screen(viewer, reset=True):
    """Where the screen shows each ball: side of the patient to (down, right) of the canvas' middle, in pixels."""
    for name in viewer.canvas.overlays:
        viewer.canvas.overlays[name].visible = False
    if reset:
        viewer.reset_view()
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., 0].astype(float)
    found = {}
    for side, brightness in MARKER_HU.items():
        pixels = np.argwhere(np.abs(picture - 255 * brightness / WHITE_HU) < 3)
        if len(pixels) > 30:
            found[side] = np.median(pixels, axis=0) - (np.array(picture.shape) - 1) / 2
    return found


def at_edges(found, threshold_px=25):
    """Which ball lies towards each edge of the canvas, by the pixels alone."""
    edges = {}
    for side, (down, right) in found.items():
        if max(abs(down), abs(right)) > threshold_px:
            edge = ("bottom" if down > 0 else "top") if abs(down) > abs(right) else ("right" if right > 0 else "left")
            edges.setdefault(edge, []).append(side)
    return {edge: "".join(sides) for edge, sides in edges.items()}


def test_every_plane_hangs_as_radiologists_hang_it_and_its_letters_are_true(viewer):
    for name in ACQUIRED:
        viewer.layers.clear()
        show(viewer, scan(name))
        for plane in PLANES:
            show_plane(viewer, plane)
            viewer.dims.current_step = [n // 2 for n in viewer.dims.nsteps]
            assert written(viewer) == UPRIGHT[plane], name
            shown = at_edges(balls_on_screen(viewer))
            assert shown.items() <= UPRIGHT[plane].items(), name
            assert len(shown) == 4 or "tilted" in name  # shear takes balls out of the middle slice


def test_letters_follow_napari_rolling_and_transposing_its_axes(viewer):
    show(viewer, scan())
    for _ in range(3):
        viewer.dims.roll()
        assert written(viewer) == at_edges(balls_on_screen(viewer))
        viewer.dims.transpose()
        assert written(viewer) == at_edges(balls_on_screen(viewer))


def test_letters_follow_a_flipped_camera(viewer):
    show(viewer, scan())
    for orientation in (("up", "right"), ("down", "left"), ("up", "left")):
        viewer.scene.camera.orientation2d = orientation
        assert written(viewer) != UPRIGHT["Axial"]
        assert written(viewer) == at_edges(balls_on_screen(viewer))


def test_letters_follow_a_layer_that_is_flipped_or_rotated(viewer):
    image = show(viewer, scan())
    image.scale = image.scale * (1, 1, -1)
    assert written(viewer)["left"] == "L"
    assert written(viewer) == at_edges(balls_on_screen(viewer))
    image.rotate = (0, 0, 90)
    assert written(viewer) == at_edges(balls_on_screen(viewer))


def test_in_3d_letters_are_true_and_the_patient_is_not_a_mirror_image(viewer):
    show(viewer, scan("axial from the head"))
    viewer.dims.ndisplay = 3
    for order in permutations(range(3)):
        viewer.dims.order = order
        for angles in ((0, 0, 0), (0, 90, 0), (0, 0, 90), (180, 0, 0)):
            viewer.scene.camera.angles = angles
            letters = written(viewer)
            assert at_edges(balls_on_screen(viewer, reset=False)) == letters, (order, angles)
            assert is_a_patient(viewer, letters), (order, angles)


def is_a_patient(viewer, edges):
    """Whether right, up and towards the viewer are a right-handed set, as they are for a real body."""
    lps = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    view = np.zeros(3)
    view[list(viewer.dims.displayed)] = viewer.scene.camera.view_direction
    towards = -view[::-1]  # napari's world is (z, y, x)
    return np.cross(lps[edges["right"]], lps[edges["top"]]) @ towards > 0.9


def test_an_oblique_3d_view_names_the_sides_that_an_edge_lies_between(viewer):
    show(viewer, scan())
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = (0, 45, 0)
    letters = letters_of(viewer)
    assert {len(letters.left), len(letters.right)} == {2}
    assert {letters.top, letters.bottom} == {"A", "P"}


def test_an_image_whose_place_in_the_patient_is_not_known_has_no_letters(viewer):
    image = show(viewer, scan())
    known = scan()
    image.metadata["volume"] = known.with_voxels(known.voxels, f"{NO_PLACE}: rows and columns are the scanner's axes")
    assert letters_of(viewer) is None
    image.metadata["volume"] = known
    assert letters_of(viewer) is not None


def test_no_letter_is_better_than_a_wrong_one(viewer):
    hang(viewer)
    viewer.add_image(np.zeros((5, 6, 7)))
    assert letters_of(viewer) is None
    image = show(viewer, scan())
    assert letters_of(viewer) is not None
    other = show(viewer, scan("coronal from the front"))
    other.rotate = (0, 0, 90)
    assert letters_of(viewer) is None
    assert set(written(viewer).values()) == {""}
    other.visible = False
    assert letters_of(viewer) is not None
    viewer.layers.remove(image)
    assert letters_of(viewer) is None


def test_the_grid_mode_has_letters_in_each_view(viewer):
    show(viewer, scan())
    show(viewer, scan("sagittal from the left"))
    viewer.canvas.grid.enabled = True
    viewer.screenshot(canvas_only=True, flash=False)
    visuals = viewer.window._qt_viewer.canvas._viewer_overlay_to_visual
    for edge in ("left", "right", "top", "bottom"):
        assert len(visuals[viewer.canvas.overlays[f"tomolens_{edge}"]]) == 2
    assert written(viewer) == UPRIGHT["Axial"]


def test_a_stack_with_time_has_letters_too(viewer):
    show(viewer, scan())
    viewer.add_image(np.zeros((3, 26, 36, 32)))
    assert viewer.dims.ndim == 4
    assert written(viewer) == UPRIGHT["Axial"]
