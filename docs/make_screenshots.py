"""Make the pictures in ``docs/images`` from the real viewer: the sample CT, the real detector, the steps of the README.

Run by ``scripts/docs``, on a virtual screen, so that the pictures are the same size everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import napari
from qtpy.QtCore import QEventLoop, QTimer

from tomolens.napari_plugin.orientation import show_plane

if TYPE_CHECKING:
    from tomolens.napari_plugin.detect_widget import DetectNodulesWidget

IMAGES = Path(__file__).parent / "images"
WINDOW_PX = (1380, 860)
ZOOM_PX_PER_MM = 6.0
LONGEST_RUN_MS = 600_000


def settle(milliseconds: int = 400) -> None:
    """Let Qt lay out and draw."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def run(widget: DetectNodulesWidget) -> None:
    """Press Run and wait for the findings."""
    loop = QEventLoop()
    widget.panel.returned.connect(loop.quit)
    QTimer.singleShot(LONGEST_RUN_MS, loop.quit)
    widget.panel.run_button.click()
    loop.exec()
    if widget.table.rowCount() == 0:
        raise SystemExit(f"No findings to show: {widget.panel.status.text()} {widget.summary.text()}")


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


def main() -> None:
    """Make every picture."""
    IMAGES.mkdir(exist_ok=True)
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(*WINDOW_PX)
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


if __name__ == "__main__":
    main()
