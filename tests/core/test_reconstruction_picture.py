"""A reconstruction in a notebook: before, after, what was changed, how sure it is, and what a reader is warned of."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tomolens.core.errors import GeometryError
from tomolens.core.finding import RESEARCH_USE
from tomolens.core.grid import Grid
from tomolens.core.kspace import NO_PLACE
from tomolens.core.reconstruction import GENERATIVE, Check, Job, Reconstruction
from tomolens.core.reconstruction_picture import DIFFERENCE_COLOURS, Scale, difference_scale, panels, views
from tomolens.core.run import Run
from tomolens.core.volume import Unit, Volume

GRID = Grid.from_axes((10, 20, 30), (3.0, 0.8, 0.5))
RUN = Run("net <1>", "1.0", "0" * 64, {"strength": 0.5}, series_uid="1.2.3")
GOOD, BAD = Check("noise", 20.0, "HU", 5.0, 80.0), Check("slice distance", 9.0, "mm", None, 5.0)


def made(changed=10.0, *, unit=Unit.HU, **others) -> Reconstruction:
    """The patient's left half was made brighter, the right half darker."""
    before = np.zeros(GRID.shape, np.int16 if unit is Unit.HU else np.float32)
    before[:, 5:15] = 100
    sides = np.where(np.arange(GRID.shape[2]) >= 15, changed, -changed)
    after = (before + sides).astype(before.dtype)
    modality = "CT" if unit is Unit.HU else "MR"
    reference, volume = (Volume(voxels, GRID, unit, modality) for voxels in (before, after))
    sigma = np.full(GRID.shape, 3.0, np.float32)
    return Reconstruction(Job.DENOISING, volume, reference, RUN, sigma, **{"checks": (GOOD,), **others})


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([^\"]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in found]


def test_three_planes_show_before_after_difference_and_uncertainty() -> None:
    html = made()._repr_html_()
    assert len(pictures(html)) == 3 * 4
    for told in ("before: the scan", "after: net &lt;1&gt;", "after minus before", "uncertainty, 1 SD", RESEARCH_USE):
        assert told in html
    assert "strength 0.5" in html


def test_the_html_is_well_formed() -> None:
    opened: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("br", "image"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Checker().feed(made(checks=(GOOD, BAD), baseline=made().reference)._repr_html_().replace("/>", ">"))


def test_what_was_made_brighter_on_the_patients_left_is_orange_on_the_right_of_the_picture() -> None:
    axial = pictures(made()._repr_html_())[2]
    left_of_patient, right_of_patient = axial[10, -3], axial[10, 3]
    assert left_of_patient.tolist() == list(DIFFERENCE_COLOURS[-1])
    assert right_of_patient.tolist() == list(DIFFERENCE_COLOURS[0])


def test_nothing_changed_is_black_and_the_bar_is_symmetric_about_it() -> None:
    scale = difference_scale(made(changed=37.0))
    assert scale.ends == ("-50", "+50 HU")
    assert scale.coloured(np.array([0.0])).tolist() == [[0, 0, 0]]
    up, down = scale.coloured(np.array([20.0])).sum(), scale.coloured(np.array([-20.0])).sum()
    assert min(up, down) > 100
    assert difference_scale(made(changed=0)).limit == 1.0


def test_what_has_no_unit_is_told_in_percent_of_the_range() -> None:
    scale = difference_scale(made(changed=10.0, unit=Unit.ARBITRARY))
    assert scale.ends == ("-10", "+10 % of range")
    np.testing.assert_array_equal(scale.coloured(np.array([10.0])), [DIFFERENCE_COLOURS[-1]])


@pytest.mark.parametrize(("largest", "limit"), [(0.7, 1.0), (1.0, 1.0), (1.01, 2.0), (4.3, 5.0), (51.0, 100.0)])
def test_a_bar_ends_at_a_round_number(largest: float, limit: float) -> None:
    assert difference_scale(made(largest, unit=Unit.HU)).limit in (limit, 1.0, 5.0)
    values = np.linspace(-2 * limit, 2 * limit, 9)
    colours = Scale(limit, "HU", 1.0, DIFFERENCE_COLOURS, True).coloured(values)
    assert colours[0].tolist() == list(DIFFERENCE_COLOURS[0])
    assert colours[-1].tolist() == list(DIFFERENCE_COLOURS[-1])


def test_checks_stand_with_their_numbers_and_one_that_failed_is_a_warning() -> None:
    html = made(checks=(GOOD, BAD))._repr_html_()
    for told in ("20 HU", "5 to 80 HU", "in range", "9 mm", "at most 5 mm", "OUT OF RANGE"):
        assert told in html
    assert "<b>slice distance 9 mm: OUT OF range (at most 5 mm)</b>" in html
    assert "checks: 1 of 2 OUT OF RANGE" in html
    assert "OUT OF" not in made()._repr_html_()


def test_a_gan_is_called_one_at_the_top_and_over_its_pictures() -> None:
    html = made(generative=True)._repr_html_()
    assert html.count(GENERATIVE) == 2
    assert GENERATIVE not in made()._repr_html_()


def test_the_classical_result_has_a_column_and_a_method_without_uncertainty_has_none() -> None:
    tv = replace(made().volume, history=("read", "ct-denoising by tv 1"))
    titles = [panel.title for panel in panels(replace(made(baseline=tv), uncertainty=None))]
    assert titles == ["before: the scan", "after: net <1>", "baseline: tv 1", "after minus before"]
    assert "uncertainty not known" in replace(made(), uncertainty=None)._repr_html_()


def test_each_row_says_which_slice_and_which_window() -> None:
    assert [view.caption for view in views(made())] == [
        "axial, slice 5, window 40/400 HU",
        "coronal, row 10, window -600/1500 HU",
        "sagittal, column 15, window 40/400 HU",
    ]


def test_where_the_file_did_not_say_where_it_lies_no_picture_claims_left_or_right() -> None:
    lost = made(unit=Unit.ARBITRARY)
    lost = replace(lost, volume=replace(lost.volume, history=(f"{NO_PLACE}: rows and columns are the scanner's",)))
    html = lost._repr_html_()
    assert not re.findall(r"<text[^>]*>[LRAPSI]</text>", html)
    assert len(re.findall(r"<text[^>]*>[LRAPSI]</text>", made()._repr_html_())) == 4 * 3 * 4
    assert "Left and right are not known" in html
    assert [view.caption for view in views(lost)] == ["slice 5", "row 10", "column 15"]


def test_parts_on_different_grids_are_refused() -> None:
    elsewhere = replace(made().reference, grid=GRID.flipped(2))
    with pytest.raises(GeometryError, match="lie on different grids"):
        replace(made(), reference=elsewhere)
    with pytest.raises(GeometryError, match="does not fit"):
        replace(made(), uncertainty=np.zeros((1, 2, 3), np.float32))


def test_large_bounds_of_a_check_are_written_out() -> None:
    check = Check("centre", 1340.4, "lines", 8.0, 4096.0)
    assert str(check) == "centre 1340 lines: in range (8 to 4096 lines)"
    assert (Check("noise", np.inf, "HU", 0.123456).number, GOOD.number) == ("\N{EN DASH}", "20 HU")
    assert Check("noise", 1.0, "HU", 0.123456).bounds == "at least 0.123"
