"""Make the pictures in ``docs/images`` from the real viewer: the sample CT, the real models, the steps of the README.

Run by ``scripts/docs``, on a virtual screen, so that the pictures are the same size everywhere.

    python docs/make_screenshots.py [detect] [reconstruct]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import napari
from napari.layers import Layer
from qtpy.QtCore import QEventLoop, QTimer

from tomolens import read_volume
from tomolens.napari_plugin import layers
from tomolens.napari_plugin.comparison import Mode
from tomolens.napari_plugin.orientation import show_plane
from tomolens.physics.low_dose import low_dose

if TYPE_CHECKING:
    from tomolens.napari_plugin.detect_widget import DetectNodulesWidget
    from tomolens.napari_plugin.scan_widget import ScanWidget

IMAGES = Path(__file__).parent / "images"
WINDOW_PX = (1380, 860)
ZOOM_PX_PER_MM = 6.0
LONGEST_RUN_MS = 600_000
SAMPLE = IMAGES.parents[1] / "sample_volumes" / "chest_ct"
FIRST_SLICE, SLICES = 70, 12
SOFT_TISSUE_HU = (-160, 240)


def settle(milliseconds: int = 400) -> None:
    """Let Qt lay out and draw."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def run(widget: ScanWidget) -> None:
    """Press Run and wait for the result."""
    loop = QEventLoop()
    widget.panel.returned.connect(loop.quit)
    QTimer.singleShot(LONGEST_RUN_MS, loop.quit)
    widget.panel.run_button.click()
    loop.exec()
    if not widget.summary.text():
        raise SystemExit(f"No result to show: {widget.panel.status.text()}")


def picture(viewer: napari.Viewer, name: str) -> None:
    """The whole window as a PNG."""
    settle()
    path = IMAGES / name
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    print(path.relative_to(IMAGES.parents[1]))


def choose(viewer: napari.Viewer, widget: DetectNodulesWidget, row: int) -> None:
    """Click on a row of the table, and come closer."""
    widget.table.selectRow(row)
    widget.table.cellClicked.emit(row, 0)
    viewer.scene.camera.zoom = ZOOM_PX_PER_MM


def opened() -> napari.Viewer:
    """An empty viewer of the pictures' size."""
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*WINDOW_PX)
    return viewer


def reconstruct() -> None:
    """A quarter of the sample's dose, before and after the network, with the swipe between them."""
    viewer, whole = opened(), read_volume(SAMPLE)
    slab = whole.cropped((FIRST_SLICE, 0, 0), (SLICES, *whole.shape[1:]))
    scan = viewer.add_layer(Layer.create(*layers.image(low_dose(slab, 0.25))))
    scan.name = "Chest CT, a quarter of the dose (simulated)"
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Reconstruct")
    run(widget)
    scan.contrast_limits = SOFT_TISSUE_HU
    widget.tabs.setCurrentIndex(1)
    widget.compare.comparison.show(Mode.SWIPE)
    viewer.reset_view()
    picture(viewer, "napari-reconstruct.png")
    viewer.close()


def detect() -> None:
    """The sample, its findings, one of them from the front."""
    viewer = opened()
    viewer.open_sample("tomolens", "chest_ct")
    _, widget = viewer.window.add_plugin_dock_widget("tomolens", "Detect lung nodules")
    viewer.window.add_plugin_dock_widget("tomolens", "Window and planes")
    picture(viewer, "napari-sample.png")
    run(widget)
    viewer.reset_view()
    picture(viewer, "napari-findings.png")
    show_plane(viewer, "Coronal")
    choose(viewer, widget, 0)
    picture(viewer, "napari-coronal.png")
    viewer.close()


def main() -> None:
    """Make the pictures that were named, or all."""
    IMAGES.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["detect", "reconstruct"]
    if "detect" in wanted:
        detect()
    if "reconstruct" in wanted:
        reconstruct()


if __name__ == "__main__":
    main()
