"""Ways of looking at two images of the same place: one after the other, side by side, or each on its side of a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from tomolens.napari_plugin.lazy_arrays import Swiped
from tomolens.napari_plugin.reconstruction_layers import LINKED

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

_SIDE_ZOOM = 0.5
"""Beside another, each of two has half the room: what was seen of it still is."""


class Mode(StrEnum):
    """How the viewer shows the pair."""

    OFF = "Normal"
    FLIP = "Flip"
    SIDE = "Side by side"
    SWIPE = "Swipe"


@dataclass(frozen=True)
class _Looks:
    """What a viewer looked like before."""

    visible: dict[Layer, bool]
    named: dict[Layer, bool]
    grid: tuple[bool, tuple[int, int], int]


class Comparison:
    """Shows a pair of a viewer's image layers; `Mode.OFF` brings back what was there.

    Parameters
    ----------
    viewer
        Whose layers they are.
    changed
        Called when the mode has changed, whoever changed it.
    """

    def __init__(self, viewer: Viewer, changed: Callable[[], None] = lambda: None) -> None:
        self._viewer, self._changed = viewer, changed
        self._pair: tuple[Image, Image] | None = None
        self._looks: _Looks | None = None
        self._swipe: Image | None = None
        self._share = 0.5
        self.mode = Mode.OFF
        self.attach()

    def attach(self) -> None:
        """Follow the viewer."""
        self._viewer.layers.events.removed.connect(self._on_removed)
        self._viewer.dims.events.order.connect(self._divide)

    def detach(self) -> None:
        """Show the normal view, and let go of the viewer."""
        self.show(Mode.OFF)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.dims.events.order.disconnect(self._divide)

    @property
    def pair(self) -> tuple[Image, Image] | None:
        """The input and the result, or whatever is compared."""
        return self._pair

    @property
    def swipes(self) -> bool:
        """Whether the two lie on one grid, voxel on voxel."""
        return self._pair is not None and self._pair[0].data.shape == self._pair[1].data.shape

    def choose(self, pair: tuple[Image, Image] | None) -> None:
        """Compare these two from now on; another pair begins with the normal view."""
        if pair != self._pair:
            self.show(Mode.OFF)
            self._pair = pair

    def show(self, mode: Mode) -> None:
        """Show the pair in a mode; without a pair, or where it cannot be swiped, nothing happens."""
        possible = mode is Mode.OFF or (self._pair is not None and (mode is not Mode.SWIPE or self.swipes))
        if not possible or mode is self.mode:
            return
        self._restore()
        if self._pair is not None and mode is not Mode.OFF:
            self._looks = self._remember(self._pair)
            {Mode.FLIP: self._show_one, Mode.SIDE: self._show_side, Mode.SWIPE: self._show_swipe}[mode](*self._pair)
        self.mode = mode
        self._changed()

    def flip(self) -> None:
        """Show the other of the two; from any other mode, the input first."""
        if self.mode is not Mode.FLIP:
            self.show(Mode.FLIP)
        elif self._pair is not None:
            before, after = self._pair
            before.visible, after.visible = after.visible, before.visible
            self._changed()

    def set_share(self, share: float) -> None:
        """Move the line of the swipe: how much of the width the input has."""
        self._share = share
        self._divide()

    # The modes

    def _show_one(self, before: Image, after: Image) -> None:
        self._hide_images()
        self._name(before, after)
        before.visible = True

    def _show_side(self, before: Image, after: Image) -> None:
        for layer in self._viewer.layers:
            layer.visible = layer in (before, after)
        self._name(before, after)
        grid, order = self._viewer.canvas.grid, list(self._viewer.layers)
        grid.shape, grid.stride = (1, 2), 1 if order.index(before) < order.index(after) else -1
        grid.enabled = True
        self._viewer.scene.camera.zoom *= _SIDE_ZOOM

    def _show_swipe(self, before: Image, after: Image) -> None:
        self._hide_images()
        after.visible = True  # under the swipe: letters and windowing are its own
        look = {
            name: getattr(after, name) for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels")
        }
        look |= {name: getattr(after, name) for name in (*LINKED, "colormap", "interpolation2d")}
        name = f"Left: {before.name}\nRight: {after.name}"
        self._swipe = Image(
            Swiped(before.data, after.data),
            **look,
            affine=after.affine.affine_matrix,
            name=name,
            metadata={"map": None},
        )
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(self._swipe)
        self._viewer.layers.selection.active = active
        self._viewer.layers.link_layers([after, self._swipe], LINKED)
        self._name(self._swipe)
        self._divide()
        for layer in (before, after):
            layer.events.data.connect(self._renew)
            layer.events.set_data.connect(self._redraw)

    def _renew(self, event: Any = None) -> None:
        """Swipe what the two show now: the result may be shown at another strength."""
        if self._swipe is not None and self._pair is not None:
            self._swipe.data = Swiped(*(layer.data for layer in self._pair))
            self._divide()

    def _redraw(self, event: Any = None) -> None:
        if self._swipe is not None:
            self._swipe.refresh()

    def _divide(self, event: Any = None) -> None:
        if self._swipe is not None:
            axis = self._viewer.dims.displayed[-1] - (self._viewer.dims.ndim - 3)
            self._swipe.data.divide(axis, self._share)
            self._swipe.refresh()

    # Back to normal

    def _remember(self, pair: tuple[Image, Image]) -> _Looks:
        grid = self._viewer.canvas.grid
        return _Looks(
            {layer: layer.visible for layer in self._viewer.layers},
            {layer: layer.name_overlay.visible for layer in pair},
            (grid.enabled, grid.shape, grid.stride),
        )

    def _restore(self) -> None:
        looks, swipe = self._looks, self._swipe
        self._looks = self._swipe = None
        for layer in self._pair or ():
            layer.events.data.disconnect(self._renew)
            layer.events.set_data.disconnect(self._redraw)
        if swipe is not None and swipe in self._viewer.layers:
            self._viewer.layers.remove(swipe)
        if looks is None:
            return
        grid = self._viewer.canvas.grid
        grid.enabled, grid.shape, grid.stride = looks.grid
        if self.mode is Mode.SIDE:
            self._viewer.scene.camera.zoom /= _SIDE_ZOOM
        for layer, visible in looks.visible.items():
            layer.visible = visible
        for layer, named in looks.named.items():
            layer.name_overlay.visible = named

    def _hide_images(self) -> None:
        for layer in self._viewer.layers:
            layer.visible = layer.visible and not isinstance(layer, Image)

    def _name(self, *layers: Layer) -> None:
        for layer in layers:
            layer.name_overlay.visible = True

    def _on_removed(self, event: Any) -> None:
        if event.value is self._swipe or (self._pair is not None and event.value in self._pair):
            self.show(Mode.OFF)
        if self._pair is not None and event.value in self._pair:
            self._pair = None
