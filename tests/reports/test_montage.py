from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tomolens.core.errors import OutputError
from tomolens.core.finding import Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.core.volume import Volume
from tomolens.phantoms.markers import marked_volume, marker_centers
from tomolens.reports.montage import SHOWN, write_montage

GRID = Grid.from_axes((40, 60, 60), (2.5, 2.0, 2.0), (-60.0, -60.0, -100.0))
GRIDS = {
    "axial": GRID,
    "coronal": GRID.permuted((1, 0, 2)).flipped(1),
    "sagittal": GRID.permuted((2, 0, 1)),
    "flat": Grid.from_axes((3, 400, 20), (1.0, 1.0, 1.0)),
    "tilted": Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 0], [0.4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])),
}
YELLOW = np.array([255, 210, 31])


def _detection(grid, count=1):
    volume = marked_volume(grid) if min(grid.shape) > 12 else Volume(np.zeros(grid.shape, np.int16), grid)
    middle = grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    findings = [Finding(tuple(middle + n), 8.0, 0.9) for n in range(count)]
    return Detection(tuple(findings), 0.5, grid, Run("net", "1.0", "0" * 64), volume)


def _pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_orientation_and_any_number_of_findings_gives_a_picture(tmp_path, grid, count):
    path = write_montage(_detection(grid, count), tmp_path / "new" / "montage.png")
    height, width, _ = _pixels(path).shape
    assert width == 1430
    assert 300 < height < 2500


def test_without_findings_nothing_is_marked(tmp_path):
    off = np.abs(_pixels(write_montage(_detection(GRID, 0), tmp_path / "m.png")) - YELLOW).sum(axis=-1)
    assert off.min() > 60


def test_the_circle_lies_round_the_ball_that_was_found(tmp_path):
    volume = marked_volume(GRID)
    center = marker_centers(GRID)["L"]
    detection = Detection((Finding(tuple(center), 20.0, 0.9),), 0.5, GRID, Run("net", "1", ""), volume)
    pixels = _pixels(write_montage(detection, tmp_path / "m.png"))
    tile = pixels[-300:-60, 30:260]  # the axial field of the finding, in the lower left corner
    marked = np.argwhere(np.abs(tile - YELLOW).sum(axis=-1) < 60)
    middle = marked.mean(axis=0)
    bright = np.argwhere(tile.min(axis=-1) > 250)
    ball = bright[np.linalg.norm(bright - middle, axis=1) < 45]
    assert len(marked) > 100
    assert len(ball) > 100
    assert np.allclose(ball.mean(axis=0), middle, atol=1.5)


def test_a_crowd_of_findings_is_cut_at_a_dozen(tmp_path):
    few = _pixels(write_montage(_detection(GRID, SHOWN), tmp_path / "few.png")).shape
    crowd = _pixels(write_montage(_detection(GRID, 80), tmp_path / "crowd.png")).shape
    assert few == crowd


def test_a_detection_read_from_a_file_has_no_voxels_to_draw(tmp_path):
    with pytest.raises(OutputError, match="holds no volume"):
        write_montage(replace(_detection(GRID), volume=None), tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_a_title_is_drawn_as_it_stands(tmp_path):
    write_montage(_detection(GRID), tmp_path / "m.png", title=r"$\frac{1}{$ & <b> Ünïcode")
