"""A viewer hung for reading scans: letters, window, the right way up."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from napari.components.overlays import TextOverlay

from tomolens.core.finding import RESEARCH_USE
from tomolens.napari_plugin import windowing
from tomolens.napari_plugin.layers import findings_in, scans, segmentations_in
from tomolens.napari_plugin.orientation import hang_upright, letters_of
from tomolens.napari_plugin.reconstruction_layers import is_part

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

_EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}
_PREFIX = "tomolens_"
_SMALL = 11
_LARGE = 18
_NOTICE = RESEARCH_USE.partition(".")[0].replace(" ", "\n", 1)
"""On two lines, so that it stays clear of the letter below where the window is narrow or two images share it."""


def hang(viewer: Viewer) -> None:
    """Give a viewer letters, window caption, presets on keys and windowing by dragging; once is enough."""
    if _PREFIX + "window" not in viewer.canvas.overlays:
        Hanging(viewer)


class Hanging:
    """Keeps what is written on a viewer true while its layers, axes and camera change.

    It lives as long as the viewer, which holds its mouse callback.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._write_on_canvas()
        viewer.canvas.overlays["scale_bar"].visible = True
        viewer.mouse_drag_callbacks.append(self._drag)
        for preset in windowing.PRESETS:
            viewer.bind_key(preset.key, _pressed(preset), overwrite=True)
        self._follow_viewer()
        for layer in viewer.layers:
            self._follow_layer(layer)
        self._on_layers_changed()

    def _drag(self, viewer: Viewer, event: Any) -> Generator[None, None, None]:
        return windowing.drag(viewer, event)

    def _write_on_canvas(self) -> None:
        overlays = self._viewer.canvas.overlays
        for edge, position in _EDGES.items():
            overlays[_PREFIX + edge] = TextOverlay(position=position, font_size=_LARGE, gridded=True)
        overlays[_PREFIX + "window"] = TextOverlay(position="top_left", font_size=_SMALL, gridded=True)
        overlays[_PREFIX + "notice"] = TextOverlay(text=_NOTICE, position="bottom_left", font_size=_SMALL)

    def _follow_viewer(self) -> None:
        viewer, camera = self._viewer, self._viewer.scene.camera
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_layers_changed)
        viewer.layers.events.reordered.connect(self._on_layers_changed)
        viewer.layers.selection.events.active.connect(self._write_window)
        viewer.dims.events.order.connect(self._on_plane_changed)
        viewer.dims.events.ndisplay.connect(self._on_plane_changed)
        camera.events.orientation.connect(self._write_letters)
        camera.events.angles.connect(self._write_letters)

    def _on_inserted(self, event: Any) -> None:
        self._follow_layer(event.value)
        self._on_layers_changed()

    def _follow_layer(self, layer: Layer) -> None:
        if findings_in([layer]) or segmentations_in([layer]):
            layer.editable = False  # a finding is not moved, nor a structure repainted, by a slip of the mouse
        elif scans([layer]):
            windowing.widen_range(layer)
        for name in ("visible", "scale", "rotate", "shear", "affine", "contrast_limits"):
            changed = getattr(layer.events, name, None)
            if changed is not None:
                changed.connect(self._write)

    def _on_layers_changed(self) -> None:
        self._overlay("notice").visible = any(map(_is_result, self._viewer.layers))
        self._on_plane_changed()
        self._write_window()

    def _on_plane_changed(self) -> None:
        hang_upright(self._viewer)
        self._write_letters()

    def _write(self) -> None:
        self._write_letters()
        self._write_window()

    def _write_letters(self) -> None:
        letters = letters_of(self._viewer)
        for edge in _EDGES:
            self._put(edge, getattr(letters, edge) if letters else "")

    def _write_window(self) -> None:
        self._put("window", windowing.caption(windowing.windowed_layer(self._viewer)))

    def _put(self, name: str, text: str) -> None:
        overlay = self._overlay(name)
        overlay.text, overlay.visible = text, bool(text)

    def _overlay(self, name: str) -> TextOverlay:
        return self._viewer.canvas.overlays[_PREFIX + name]


def _is_result(layer: Layer) -> bool:
    return bool(findings_in([layer]) or segmentations_in([layer])) or is_part(layer)


def _pressed(preset: windowing.Preset) -> Callable[[Viewer], None]:
    """What napari calls on a key; it wants a function with a name."""

    def window(viewer: Viewer) -> None:
        windowing.apply_preset(viewer, preset)

    return window
