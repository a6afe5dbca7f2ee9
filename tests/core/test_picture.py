from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tomolens.core.finding import Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.hanging import Plane
from tomolens.core.picture import LUNG_WINDOW_HU, default_window, slice_svg, windowed
from tomolens.core.run import Run
from tomolens.core.series import Series
from tomolens.core.volume import Volume
from tomolens.phantoms.markers import marked_volume, marker_centers

GRID = Grid.from_axes((30, 40, 50), (2.0, 1.0, 0.8), (-20.0, -300.0, 55.0))
RUN = Run("net", "1.0", "0" * 64)


@pytest.fixture
def detection() -> Detection:
    volume = marked_volume(GRID)
    findings = [Finding(tuple(center), 6.0, 0.9 - n / 10) for n, center in enumerate(marker_centers(GRID).values())]
    return Detection(tuple(findings), 0.5, GRID, RUN, volume)


def test_a_window_maps_its_lower_edge_to_black_its_centre_to_grey_and_its_upper_edge_to_white():
    assert windowed(np.array([-2000, -1350, -600, 150, 3000]), *LUNG_WINDOW_HU).tolist() == [0, 0, 127, 255, 255]


def test_an_mr_window_follows_the_numbers_and_a_constant_image_still_has_one():
    low_high = default_window(np.linspace(0, 1000, 64**3).reshape(64, 64, 64), "MR")
    assert low_high == pytest.approx((502.5, 985), abs=3)
    assert default_window(np.zeros((4, 4, 4)), "MR")[1] > 0


def test_a_slice_is_drawn_in_true_proportions():
    plane = Plane(GRID, 1, 20)
    svg = slice_svg(plane, plane.pixels(marked_volume(GRID).voxels), LUNG_WINDOW_HU, px_per_mm=2.0)
    assert 'viewBox="0 0 40.00 60.00"' in svg
    assert 'width="80" height="120"' in svg
    png = re.search(r"base64,([^\"]+)", svg).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(png))).size == (50, 30)


def test_a_circle_surrounds_the_finding_where_the_slice_cuts_it_and_nowhere_else():
    finding = Finding(tuple(GRID.to_mm((10, 20, 30))), 8.0, 0.9)
    voxels = marked_volume(GRID).voxels

    def circles(index):
        plane = Plane(GRID, 0, index)
        svg = slice_svg(plane, plane.pixels(voxels), LUNG_WINDOW_HU, [("1", finding)])
        return re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', svg)

    assert circles(10) == [("24.40", "20.50", "6.00")]
    assert circles(12) == circles(10)
    assert circles(13) == []


def test_a_volume_shows_its_three_central_slices_and_says_what_it_is():
    html = marked_volume(GRID)._repr_html_()
    assert re.findall(r"<title>([^<]+)", html) == ["axial, slice 15", "coronal, row 20", "sagittal, column 25"]
    assert "50 x 40 x 30 voxels of 0.80 x 1.00 x 2.00 mm, HU" in html


def test_a_detection_shows_each_finding_in_three_planes_and_where_all_of_them_lie(detection):
    html = detection._repr_html_()
    assert "<b>5 findings</b>" in html
    assert html.count("<svg") == 2 + 3 * 5
    assert "Research use only" in html
    x, y, z = detection.findings[0].center_lps_mm
    assert f"{x:.1f}, {y:.1f}, {z:.1f}" in html


def test_a_detection_without_its_volume_shows_the_table_alone(detection):
    html = replace(detection, volume=None)._repr_html_()
    assert "<svg" not in html
    assert html.count("<tr>") == 6


def test_a_detection_without_findings_says_so_and_shows_the_patient(detection):
    html = detection.at(1.0)._repr_html_()
    assert "<b>0 findings</b>" in html
    assert html.count("<svg") == 2
    assert "<table" not in html


def test_many_findings_are_not_all_drawn_and_the_rest_is_counted(detection):
    crowd = Detection(detection.candidates * 5, 0.0, GRID, RUN, detection.volume)
    assert "and 18 more" in crowd._repr_html_()


def test_text_from_a_header_cannot_become_markup():
    series = Series("1", "2", "CT", (), (30, 40, 50), None, description="<script>alert(1)</script>")
    volume = replace(marked_volume(GRID), series=series)
    detection = Detection((), 0.5, GRID, Run("<i>net</i>", "1", ""), volume)
    assert "<script" not in volume._repr_html_() + detection._repr_html_()
    assert "<i>net" not in detection._repr_html_()


def test_an_mr_volume_is_drawn_too():
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((8, 9, 10), np.float32), Grid.from_axes((8, 9, 10)), modality="MR")
    assert volume._repr_html_().count("<svg") == 3
