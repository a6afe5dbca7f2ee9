"""Window centre and width: presets, keys, and dragging with the right mouse button."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tomolens.core.volume import Unit, Volume
from tomolens.napari_plugin.layers import scans

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

RIGHT_BUTTON = 2
_CT_RANGE_HU = (-1024.0, 3071.0)
_WIDTH_PER_PX = 1 / 300
"""A drag of 300 pixels doubles the width or moves the centre by it."""
_NARROWEST = 1 / 500
"""Of the width at the start of a drag."""


@dataclass(frozen=True)
class Preset:
    """A window in HU that radiologists know by its name."""

    name: str
    center_hu: float
    width_hu: float
    key: str


PRESETS = (
    Preset("Lung", -600, 1500, "F2"),
    Preset("Mediastinum", 50, 350, "F3"),
    Preset("Bone", 400, 1800, "F4"),
    Preset("Brain", 40, 80, "F5"),
    Preset("Liver", 30, 150, "F6"),
)


def window_of(layer: Image) -> tuple[float, float]:
    """(centre, width) of an image layer, in its unit."""
    low, high = (float(limit) for limit in layer.contrast_limits)
    return (low + high) / 2, high - low


def set_window(layer: Image, center: float, width: float) -> None:
    """Show an image layer with this centre and width."""
    layer.contrast_limits = (center - width / 2, center + width / 2)


def windowed_layer(viewer: Viewer) -> Image | None:
    """The image that windowing acts on: the selected scan, else the topmost visible one; None without a scan."""
    found = scans(viewer.layers)
    active = viewer.layers.selection.active
    return active if active in found else next((layer for layer in found if layer.visible), None)


def widen_range(layer: Image) -> None:
    """Let napari's contrast slider reach all of a scan's numbers, for CT those of 12 bits, and its window."""
    (low, high), window = _range_of(layer), tuple(layer.contrast_limits)
    layer.contrast_limits_range = min(low, *window), max(high, *window)


def _range_of(layer: Image) -> tuple[float, float]:
    if takes_presets(layer):
        return _CT_RANGE_HU
    return float(layer.data.min()), float(layer.data.max())


def takes_presets(layer: Image | None) -> bool:
    """Whether presets mean anything for a layer: they are in HU."""
    volume = layer.metadata.get("volume") if layer is not None else None
    return isinstance(volume, Volume) and volume.unit is Unit.HU


def apply_preset(viewer: Viewer, preset: Preset) -> None:
    """Window the scan; without one in HU, say that presets are for CT."""
    layer = windowed_layer(viewer)
    if layer is not None and takes_presets(layer):
        set_window(layer, preset.center_hu, preset.width_hu)
    else:
        viewer.status = f"{preset.name} window: presets are in HU, and no CT is shown"


def caption(layer: Image | None) -> str:
    """The window as radiologists write it, e.g. ``W 1500  L -600``; empty without a layer."""
    if layer is None:
        return ""
    center, width = window_of(layer)
    digits = 0 if takes_presets(layer) or width >= 20 else 2
    return f"W {width:.{digits}f}  L {center:.{digits}f}"


def drag(viewer: Viewer, event: Any) -> Generator[None, None, None]:
    """Window by dragging with the right button: to the right widens, up brightens.

    A napari mouse drag callback. The camera, which would zoom, is held until the button is released.
    """
    layer = windowed_layer(viewer) if event.button == RIGHT_BUTTON else None
    if layer is None:
        return
    camera = viewer.scene.camera
    pan, camera.mouse_pan = camera.mouse_pan, False  # napari's one switch for all that moves of the mouse do
    (start_x, start_y), (center, width) = event.pos, window_of(layer)
    try:
        yield
        while event.type == "mouse_move":
            right, down = event.pos[0] - start_x, event.pos[1] - start_y
            wider = max(1 + right * _WIDTH_PER_PX, _NARROWEST)
            set_window(layer, center + down * _WIDTH_PER_PX * width, width * wider)
            yield
    finally:
        camera.mouse_pan = pan
