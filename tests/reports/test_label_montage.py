from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.reports.test_montage import GRIDS
from tomolens.core.errors import OutputError
from tomolens.core.grid import Grid
from tomolens.core.label_picture import colour_of, fullest_planes
from tomolens.core.run import Run
from tomolens.core.segmentation import Segmentation
from tomolens.core.volume import Volume
from tomolens.reports.label_montage import SHOWN, write_label_montage
from tomolens.reports.sheet import HEAD, LABEL, MARGIN, overview_scale

RUN = Run("net", "1.0", "0" * 64)
GRID = Grid.from_axes((40, 60, 60), (2.5, 2.0, 2.0), (-60.0, -60.0, -100.0))


def _left_upper_back_corner(grid: Grid) -> Segmentation:
    """One structure on the patient's left, in the upper half, at the back."""
    points = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    middle = grid.to_mm((np.asarray(grid.shape) - 1) / 2)
    labels = (points > middle).all(axis=-1).astype(np.uint8)
    return Segmentation(labels, {1: "corner"}, grid, RUN, Volume(np.full(grid.shape, -1000, np.int16), grid))


def _many(count: int) -> Segmentation:
    labels = np.zeros(GRID.shape, np.uint16)
    labels.ravel()[: count * 10] = np.repeat(np.arange(1, count + 1), 10)
    names = {label: f"structure {label} with a name that is longer than its column" for label in range(1, count + 1)}
    return Segmentation(labels, names, GRID, RUN, Volume(np.zeros(GRID.shape, np.int16), GRID))


def _pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def _coloured(pixels):
    """Where the picture is of the first label's hue."""
    red, green, blue = colour_of(1)
    return (pixels[..., 0] - pixels[..., 2] > 60) & (red > green > blue)


def _axial(made: Segmentation, path) -> np.ndarray:
    """The first picture of the montage."""
    planes = fullest_planes(made)
    height, width = (round(110 * overview_scale(planes) * mm) for mm in planes[0].size_mm)
    top, left = round(110 * (HEAD + LABEL)), round(110 * MARGIN)
    return _pixels(write_label_montage(made, path))[top : top + height, left : left + width]


@pytest.mark.parametrize("name", ["axial", "coronal", "sagittal"])
def test_the_colour_lies_on_the_patients_left_at_the_back_however_the_scan_is_stored(tmp_path, name):
    axial = _axial(_left_upper_back_corner(GRIDS[name]), tmp_path / "new" / "m.png")
    rows, columns = np.nonzero(_coloured(axial))
    height, width, _ = axial.shape
    assert rows.min() == pytest.approx(height / 2, abs=3)
    assert columns.min() == pytest.approx(width / 2, abs=3)
    assert rows.max() > 0.97 * height
    assert columns.max() > 0.97 * width


def test_where_nothing_was_segmented_nothing_is_coloured_and_the_slices_stand_alone(tmp_path):
    made = _left_upper_back_corner(GRID)
    empty = replace(made, labels=np.zeros_like(made.labels))
    full = _pixels(write_label_montage(made, tmp_path / "full.png"))
    pixels = _pixels(write_label_montage(empty, tmp_path / "empty.png"))
    assert not _coloured(pixels).any()
    assert len(pixels) < len(full)


def test_a_crowd_of_structures_is_cut_at_the_largest(tmp_path):
    few = _pixels(write_label_montage(_many(SHOWN), tmp_path / "few.png")).shape
    assert _pixels(write_label_montage(_many(SHOWN + 40), tmp_path / "crowd.png")).shape == few


def test_a_segmentation_read_from_a_file_has_no_voxels_to_draw(tmp_path):
    with pytest.raises(OutputError, match="holds no volume"):
        write_label_montage(replace(_many(3), volume=None), tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_a_scan_of_one_slice_is_drawn_too(tmp_path):
    grid = Grid.from_axes((1, 30, 30), (5.0, 1.0, 1.0))
    made = Segmentation(
        np.ones(grid.shape, np.uint8), {1: "all"}, grid, RUN, Volume(np.zeros(grid.shape, np.int16), grid)
    )
    assert _coloured(_pixels(write_label_montage(made, tmp_path / "m.png"))).any()
