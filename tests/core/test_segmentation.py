from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.core.grids import grids
from tomolens.core.errors import SegmentationError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.label_picture import colour_of, fullest_planes, hex_colour, overlaid
from tomolens.core.run import Run
from tomolens.core.segmentation import Segmentation
from tomolens.core.volume import Volume

RUN = Run("net", "1.0", "0" * 64, series_uid="1.2.3")
GRID = Grid.from_axes((10, 20, 30), (3.0, 0.8, 0.5))
NAMES = {1: "liver", 2: "spleen", 5: "kidney <left>"}


def labels() -> np.ndarray:
    drawn = np.zeros(GRID.shape, np.uint8)
    drawn[2:5, 4:8, 10:20] = 1
    drawn[6, 3, 7] = 5
    return drawn


def segmentation(drawn=None, grid=GRID) -> Segmentation:
    drawn = labels() if drawn is None else drawn
    volume = Volume(np.full(grid.shape, 40, np.int16), grid)
    return Segmentation(drawn, NAMES, grid, RUN, volume)


def test_volumes_are_voxels_times_the_volume_of_one_also_of_what_was_not_found() -> None:
    table = segmentation().to_dataframe()
    assert list(table) == ["series_uid", "label", "name", "voxels", "volume_ml"]
    assert table["voxels"].tolist() == [120, 0, 1]
    assert table["volume_ml"].tolist() == pytest.approx([0.144, 0.0, 0.0012])
    assert [structure.name for structure in segmentation().found] == ["liver", "kidney <left>"]


@given(grids())
def test_the_volume_of_all_voxels_is_that_of_the_grid_however_it_is_turned_or_sheared(grid: Grid) -> None:
    drawn = np.full(grid.shape, 1, np.uint8)
    (structure,) = Segmentation(drawn, {1: "all"}, grid, RUN).structures
    assert structure.volume_ml == pytest.approx(np.prod(grid.shape) * abs(np.linalg.det(grid.affine)) / 1000)
    (turned,) = Segmentation(drawn.transpose(2, 0, 1), {1: "all"}, grid.permuted((2, 0, 1)).flipped(1), RUN).structures
    assert turned.volume_ml == pytest.approx(structure.volume_ml)


@given(grids(), st.data())
def test_a_structure_of_one_voxel_has_its_middle_there(grid: Grid, data: st.DataObject) -> None:
    kji = data.draw(st.tuples(*[st.integers(0, n - 1) for n in grid.shape]))
    drawn = np.zeros(grid.shape, np.uint16)
    drawn[kji] = 300
    assert Segmentation(drawn, {300: "spot"}, grid, RUN).middle_kji(300) == kji


def test_the_middle_of_a_hollow_structure_lies_in_it() -> None:
    drawn = np.zeros(GRID.shape, np.uint8)
    drawn[2:9, 2:18, 2:28] = 1
    drawn[4:7, 4:16, 4:26] = 0
    made = segmentation(drawn)
    assert made.labels[made.middle_kji(1)] == 1


def test_the_middle_of_what_was_not_found_is_refused_with_what_was() -> None:
    with pytest.raises(SegmentationError, match=r"Nothing was segmented as 2; found were 1 liver, 5 kidney"):
        segmentation().middle_kji(2)


def test_labels_are_read_only_and_not_copied() -> None:
    drawn = labels()
    made = segmentation(drawn)
    assert np.shares_memory(made.labels, drawn)
    with pytest.raises(ValueError, match="read-only"):
        made.labels[0, 0, 0] = 1
    with pytest.raises(TypeError):
        made.names[9] = "heart"  # type: ignore[index]


@pytest.mark.parametrize(
    ("drawn", "names", "why"),
    [
        (labels().astype(np.int64), NAMES, "uint8 or uint16, not int64"),
        (labels().astype(np.float32), NAMES, "uint8 or uint16, not float32"),
        (labels()[:, ::-1].transpose(0, 2, 1), NAMES, r"\(10, 30, 20\) do not lie on a grid of \(10, 20, 30\)"),
        (labels(), {1: "liver", 2: "spleen"}, "without a name: 5; named are 1 liver, 2 spleen"),
        (labels(), {**NAMES, 0: "background"}, "labels from 1 to 65535"),
        (labels(), {**NAMES, 7: ""}, "labels from 1 to 65535"),
        (np.zeros(GRID.shape, np.uint8), {}, "labels from 1 to 65535"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(drawn: np.ndarray, names: dict[int, str], why: str) -> None:
    with pytest.raises(SegmentationError, match=why):
        Segmentation(drawn, names, GRID, RUN)


def pictures(html: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in re.findall(r"base64,([^\"]+)", html)]


def test_the_notebook_shows_the_fullest_slices_in_the_colours_of_the_legend() -> None:
    html = segmentation()._repr_html_()
    assert re.findall(r"<title>([^<]+)", html) == ["axial, slice 2", "coronal, row 4", "sagittal, column 10"]
    axial = pictures(html)[0].astype(int)
    assert axial.shape == (20, 30, 3)
    coloured = np.argwhere(axial.max(axis=-1) - axial.min(axis=-1) > 20)
    assert coloured.min(axis=0).tolist() == [4, 10]
    assert coloured.max(axis=0).tolist() == [7, 19]
    assert hex_colour(1) in html
    assert "kidney &lt;left&gt;" in html
    assert "2 of the model&#x27;s 3 structures were segmented" in html
    assert RESEARCH_USE in html


def test_where_nothing_was_segmented_it_says_so() -> None:
    html = segmentation(np.zeros(GRID.shape, np.uint8))._repr_html_()
    assert "Nothing was segmented" in html
    assert "<table" not in html
    assert len(pictures(html)) == 3


def test_a_segmentation_without_its_volume_shows_the_labels_alone() -> None:
    axial = pictures(replace(segmentation(), volume=None)._repr_html_())[0]
    assert axial[5, 12].tolist() == [round(part * 255) for part in colour_of(1)]
    assert axial[0, 0].tolist() == [0, 0, 0]


def test_the_same_patient_has_the_same_pictures_however_the_scan_was_stored() -> None:
    made = segmentation()
    volume = made.volume.permuted((2, 0, 1)).flipped(0)
    turned = Segmentation(np.flip(made.labels.transpose(2, 0, 1), 0), NAMES, volume.grid, RUN, volume)
    for one, other in zip(pictures(made._repr_html_()), pictures(turned._repr_html_()), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [plane.name for plane in fullest_planes(turned)] == ["axial", "coronal", "sagittal"]


def test_colours_of_a_dozen_labels_can_be_told_apart_and_no_two_of_32_are_the_same() -> None:
    colours = np.array([colour_of(label) for label in range(1, 33)])
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + 9 * np.eye(32)
    assert apart[:12, :12].min() > 0.25
    assert apart.min() > 0.1
    assert ((colours >= 0) & (colours <= 1)).all()


def test_a_slice_keeps_its_grey_where_there_is_no_label() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    drawn = np.zeros((3, 4), np.uint8)
    drawn[1, 2] = 3
    coloured = overlaid(grey, drawn, opacity=1.0)
    assert coloured[1, 2].tolist() == [round(part * 255) for part in colour_of(3)]
    np.testing.assert_array_equal(coloured[0], np.repeat(grey[0, :, None], 3, axis=1))
