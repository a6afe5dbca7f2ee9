from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.grids import grids, numbered
from tomolens.core.errors import FindingError, OptionError
from tomolens.core.finding import RESEARCH_USE, Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.core.volume import Volume

RUN = Run("fake", "0.0.0", "0" * 64, series_uid="1.2.3")
GRID = Grid.from_axes((40, 50, 60), (2.0, 1.0, 1.0), (-30.0, -25.0, -40.0))
FINDINGS = st.builds(
    Finding, st.tuples(*[st.floats(-500, 500)] * 3), st.floats(0.1, 300), st.floats(0, 1, allow_subnormal=False)
)


def detection(*scores: float, min_score: float = 0.5) -> Detection:
    found = tuple(Finding((n, 0.0, 0.0), 6.0, score) for n, score in enumerate(scores))
    return Detection(found, min_score, GRID, RUN)


def test_findings_come_surest_first_and_reach_the_threshold() -> None:
    found = detection(0.2, 0.9, 0.5, 0.7)
    assert [f.score for f in found] == [0.9, 0.7, 0.5]
    assert len(found) == 3
    assert found.findings[0].center_lps_mm == (1, 0.0, 0.0)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_another_threshold_needs_no_second_run(scores: list[float], first: float, second: float) -> None:
    found = detection(*scores, min_score=first)
    assert found.at(second).findings == detection(*scores, min_score=second).findings
    assert found.at(second).at(first).findings == found.findings
    assert len(found.at(max(first, second))) <= len(found)


@pytest.mark.parametrize("min_score", [-0.1, 1.1, np.nan])
def test_a_threshold_that_is_no_score_is_refused_with_the_value(min_score: float) -> None:
    with pytest.raises(OptionError, match=str(min_score)):
        detection(0.5, min_score=min_score)


@pytest.mark.parametrize(
    ("center", "diameter", "score"),
    [
        ((np.nan, 0, 0), 6.0, 0.5),
        ((0, np.inf, 0), 6.0, 0.5),
        ((0, 0, 0), 0.0, 0.5),
        ((0, 0, 0), np.nan, 0.5),
        ((0, 0, 0), np.inf, 0.5),
        ((0, 0, 0), 6.0, np.nan),
        ((0, 0, 0), 6.0, 1.01),
        ((0, 0, 0), 6.0, -0.01),
    ],
)
def test_a_finding_without_a_place_a_size_or_a_score_is_refused(
    center: tuple[float, float, float], diameter: float, score: float
) -> None:
    with pytest.raises(FindingError, match="finite centre"):
        Finding(center, diameter, score)


@given(FINDINGS)
def test_a_finding_written_as_values_and_read_back_is_the_same(finding: Finding) -> None:
    assert Finding.from_dict(finding.to_dict()) == finding


def test_the_table_counts_from_one_and_names_every_column() -> None:
    table = detection(0.6, 0.9).to_dataframe()
    assert list(table) == [
        "series_uid",
        "finding",
        "score",
        "x_mm",
        "y_mm",
        "z_mm",
        "diameter_mm",
        "slice",
        "texture",
        "malignancy",
        "source",
    ]
    assert table["finding"].tolist() == [1, 2]
    assert table["score"].tolist() == [0.9, 0.6]
    assert table["series_uid"].unique().tolist() == ["1.2.3"]


def test_the_table_of_nothing_found_keeps_its_columns() -> None:
    assert "diameter_mm" in detection().to_dataframe()
    assert detection().to_dataframe().empty


@given(grids(), st.data())
def test_a_finding_names_the_slice_it_lies_in_however_the_scan_is_turned(grid: Grid, data: st.DataObject) -> None:
    kji = data.draw(st.tuples(*[st.integers(0, n - 1) for n in grid.shape]))
    x, y, z = grid.to_mm(kji).tolist()
    finding = Finding((x, y, z), 5.0, 0.9)
    assert Detection((finding,), 0.5, grid, RUN).slice_of(finding) == kji[0]
    flipped = Detection((finding,), 0.5, grid.flipped(0), RUN)
    assert flipped.slice_of(finding) == grid.shape[0] - 1 - kji[0]


def test_a_finding_just_outside_the_scan_names_the_nearest_slice() -> None:
    above = Finding((0.0, 0.0, 1000.0), 5.0, 0.9)
    assert Detection((above,), 0.5, GRID, RUN).slice_of(above) == 39


def test_the_notebook_shows_three_slices_a_finding_where_the_volume_is_at_hand() -> None:
    volume = Volume(numbered(GRID.cropped((0, 0, 0), (10, 10, 10))), GRID.cropped((0, 0, 0), (10, 10, 10)))
    x, y, z = volume.grid.to_mm((5, 5, 5)).tolist()
    found = Detection((Finding((x, y, z), 4.0, 0.87),), 0.5, volume.grid, RUN, volume)
    html = found._repr_html_()
    assert html.count("<svg") >= 3
    assert "0.87" in html
    assert "1 finding" in html


def test_the_notebook_needs_no_volume_and_says_that_it_is_for_research() -> None:
    html = detection(0.9)._repr_html_()
    assert "<svg" not in html
    assert RESEARCH_USE in html
    assert "0 findings" in detection()._repr_html_()


def test_texture_and_malignancy_survive_as_plain_values_and_are_optional() -> None:
    rated = Finding((1.0, 2.0, 3.0), 8.0, 0.7, "part-solid", 0.25)
    assert Finding.from_dict(rated.to_dict()) == rated
    assert rated.kind == "part-solid, malignant 0.25"
    older = {name: value for name, value in rated.to_dict().items() if name not in ("texture", "malignancy")}
    assert Finding.from_dict(older) == Finding((1.0, 2.0, 3.0), 8.0, 0.7)
    assert Finding.from_dict(older).kind == ""


@pytest.mark.parametrize("wrong", [("wooden", 0.5), ("solid", 1.5), ("solid", float("nan"))])
def test_a_texture_or_malignancy_that_cannot_be_is_refused(wrong) -> None:
    with pytest.raises(FindingError, match=r"ground glass, part-solid, solid"):
        Finding((1.0, 2.0, 3.0), 8.0, 0.7, *wrong)
