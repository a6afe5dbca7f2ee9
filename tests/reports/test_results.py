from __future__ import annotations

from dataclasses import replace

import pytest

from tomolens.core.errors import OutputError, ReadError
from tomolens.core.finding import Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.phantoms.markers import marked_volume
from tomolens.reports.kinds import FINDINGS
from tomolens.reports.page import write_index
from tomolens.reports.results import About, Request, read_result, write_error, write_result

GRID = Grid.from_axes((20, 30, 30), (2.5, 2.0, 2.0))
ABOUT = About("1.2.3", 0, "1.2", "Lung <i>1.0</i>", "CT", GRID.shape, GRID.spacing_mm, ("A & B were tilted.",))
REQUEST = Request("net", "1.0", "a" * 64, 0.5, "keep", "refuse", None, 20, "f" * 64)
RUN = Run("net", "1.0", "a" * 64, {"min_score": 0.5}, "1.2.3", versions={"torch": "<2>"}, seconds={"total": 1.23456})


@pytest.fixture
def detection():
    return Detection((Finding((10.0, 20.0, 30.0), 8.0, 0.93),), 0.5, GRID, RUN, marked_volume(GRID))


def test_a_result_is_read_back_as_it_was_written(detection, tmp_path):
    write_result(FINDINGS, tmp_path / "one", ABOUT, REQUEST, detection)
    result = read_result(FINDINGS, tmp_path / "one")
    assert (result.name, result.about, result.request) == ("one", ABOUT, REQUEST)
    assert result.content.candidates == detection.candidates


def test_a_result_takes_the_place_of_an_error_and_an_error_that_of_a_result(detection, tmp_path):
    folder = tmp_path / "one"
    write_error(folder, "cut short", "Traceback")
    write_result(FINDINGS, folder, ABOUT, REQUEST, detection)
    assert not (folder / "error.txt").exists()
    write_error(folder, "cut short", "Traceback")
    assert [path.name for path in folder.iterdir()] == ["error.txt"]


def test_a_result_that_cannot_be_written_leaves_what_was_there(detection, tmp_path):
    folder = tmp_path / "one"
    write_result(FINDINGS, folder, ABOUT, REQUEST, detection)
    with pytest.raises(OutputError):
        write_result(FINDINGS, folder, ABOUT, REQUEST, replace(detection, volume=None))
    assert read_result(FINDINGS, folder).about == ABOUT
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("name", ["series.json", "findings.json", "montage.png"])
def test_a_result_that_lacks_a_file_is_refused_by_name(detection, tmp_path, name):
    write_result(FINDINGS, tmp_path / "one", ABOUT, REQUEST, detection)
    (tmp_path / "one" / name).unlink()
    with pytest.raises(ReadError, match=name):
        read_result(FINDINGS, tmp_path / "one")


def test_a_request_says_what_differs_from_another():
    assert REQUEST.differences(REQUEST) == ""
    other = replace(REQUEST, min_score=0.3, weights_sha256="b" * 64)
    assert REQUEST.differences(other) == (
        "weights_sha256 was aaaaaaaaaaaa..., is bbbbbbbbbbbb...; min_score was 0.5, is 0.3"
    )


def test_the_page_shows_findings_remarks_and_how_they_were_made_and_no_text_becomes_markup(detection, tmp_path):
    write_result(FINDINGS, tmp_path / "one-1", ABOUT, REQUEST, detection)
    write_result(FINDINGS, tmp_path / "two-2", replace(ABOUT, problems=()), REQUEST, detection.at(1.0))
    write_error(tmp_path / "three-3", "<b>cut</b> short", "Traceback")
    page = write_index(FINDINGS, tmp_path, {"T2 <x>": "it is MR"}).read_text(encoding="utf-8")
    for shown in (
        "Lung &lt;i&gt;1.0&lt;/i&gt;",
        "A &amp; B were tilted.",
        "torch: &lt;2&gt;",
        "&lt;b&gt;cut&lt;/b&gt; short",
        "T2 &lt;x&gt;",
        "0.93",
        "30.0",
        'src="one-1/montage.png"',
        'href="two-2/findings.csv"',
        "total: 1.235",
        "No finding reaches a score of 1.00",
        "Research use only",
    ):
        assert shown in page
    assert "<i>" not in page


def test_the_page_needs_no_network(detection, tmp_path):
    write_result(FINDINGS, tmp_path / "one", ABOUT, REQUEST, detection)
    page = write_index(FINDINGS, tmp_path).read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_a_damaged_result_stands_on_the_page_as_failed(detection, tmp_path):
    write_result(FINDINGS, tmp_path / "one", ABOUT, REQUEST, detection)
    (tmp_path / "one" / "findings.json").write_text("{")
    page = write_index(FINDINGS, tmp_path).read_text(encoding="utf-8")
    assert "is not JSON" in page
    assert "1 failed" in page


def test_an_output_folder_without_results_gets_a_page_that_says_so(tmp_path):
    assert "No series was read." in write_index(FINDINGS, tmp_path).read_text(encoding="utf-8")
