from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from tomolens.core.errors import ReadError
from tomolens.core.finding import Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.io.tables import read_detection, write_detection

GRID = Grid.from_axes((40, 50, 60), (1.25, 0.7, 0.7), (-20.0, -30.0, -500.0), frame_of_reference="1.2.3")
RUN = Run(
    "fake",
    "1.0",
    "a" * 64,
    options={"min_score": 0.5},
    series_uid="1.2.840.1",
    source="Thorax, 1 mm",
    history=("read",),
    notes=("cpu",),
)
FINDINGS = (
    Finding((1.0 / 3, -2.123456, -480.0), 7.126, 0.61234567, "part-solid", 1 / 3),
    Finding((-5.5, 0.0, -470.004), 12.0, 0.97),
    Finding((0.0, 0.0, -490.0), 4.0, 0.2),
)


@pytest.fixture
def detection() -> Detection:
    return Detection(FINDINGS, 0.5, GRID, RUN)


def test_what_is_written_is_read_back_exactly(detection, tmp_path):
    back = read_detection(write_detection(detection, tmp_path / "new" / "folder"))
    assert back.candidates == detection.candidates
    assert back.findings == detection.findings
    assert back.min_score == detection.min_score
    assert back.run == detection.run
    assert back.grid.same_place(detection.grid, tolerance_mm=0)


def test_a_folder_is_read_like_the_findings_file_in_it(detection, tmp_path):
    write_detection(detection, tmp_path)
    assert read_detection(tmp_path).candidates == detection.candidates


def test_another_threshold_can_be_taken_after_reading_since_the_candidates_below_it_are_kept(detection, tmp_path):
    assert len(read_detection(write_detection(detection, tmp_path)).at(0.1)) == 3


def test_the_table_lists_the_findings_surest_first_in_patient_mm_rounded(detection, tmp_path):
    write_detection(detection, tmp_path)
    with (tmp_path / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        list(rows[0]) == "series_uid finding score x_mm y_mm z_mm diameter_mm slice texture malignancy source".split()
    )
    first = ["1.2.840.1", "1", "0.97", "-5.5", "0.0", "-470.0", "12.0", "24", "", "", "Thorax, 1 mm"]
    assert list(rows[0].values()) == first
    assert list(rows[1].values()) == [
        "1.2.840.1",
        "2",
        "0.6123",
        "0.33",
        "-2.12",
        "-480.0",
        "7.13",
        "16",
        "part-solid",
        "0.3333",
        "Thorax, 1 mm",
    ]
    assert len(rows) == 2


def test_no_finding_gives_a_table_with_its_header_alone(detection, tmp_path):
    write_detection(replace(detection, candidates=()), tmp_path)
    assert (tmp_path / "findings.csv").read_text().count("\n") == 1
    assert read_detection(tmp_path).findings == ()


def test_numbers_of_numpy_are_written_like_any_other(detection, tmp_path):
    finding = Finding(tuple(np.float32((1, 2, 3))), np.float32(5), np.float32(0.75))
    write_detection(replace(detection, candidates=(finding,)), tmp_path)
    assert read_detection(tmp_path).candidates == (Finding((1.0, 2.0, 3.0), 5.0, 0.75),)


def test_the_json_says_its_schema_its_coordinates_and_that_it_is_for_research(detection, tmp_path):
    content = json.loads(write_detection(detection, tmp_path).read_text())
    assert (content["schema"], content["schema_version"]) == ("tomolens/findings", 1)
    assert "+x left, +y posterior, +z superior" in content["coordinates"]
    assert "Research use only" in content["notice"]
    assert content["run"]["weights_sha256"] == "a" * 64


def test_a_write_that_fails_leaves_the_folder_as_it_was(detection, tmp_path):
    write_detection(detection, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    unwritable = replace(detection, run=replace(RUN, options={"min_score": object()}))
    with pytest.raises(TypeError):
        write_detection(unwritable, tmp_path)
    assert (tmp_path / "findings.json").read_bytes() == before["findings.json"]
    assert {path.name for path in tmp_path.iterdir()} == set(before)


def _altered(detection, tmp_path, **changes):
    path = write_detection(detection, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def _finding(**changes):
    return {"score": 0.9, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 0.0, "diameter_mm": 5.0, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "coco"}, "not a findings file"),
        ({"schema_version": 2}, "schema version 2"),
        ({"schema_version": "1"}, "schema version '1'"),
        ({"min_score": 3}, "min_score"),
        ({"findings": [_finding(score=0.1)]}, "not the candidates that reach"),
        ({"below_threshold": [_finding()]}, "not the candidates that reach"),
        ({"findings": [_finding(diameter_mm=-5)]}, "diameter"),
        ({"findings": [_finding(x_mm=float("nan"))]}, "finite"),
        ({"findings": [{"score": 0.9}]}, "lacks the key 'x_mm'"),
        ({"findings": ["nodule"]}, "cannot be right"),
        ({"findings": None}, "cannot be right"),
        ({"grid": {"shape": [1, 2], "affine": np.eye(4).tolist(), "frame_of_reference": None}}, "three sizes"),
        ({"grid": {"shape": [1, 2, 3], "affine": [[1]], "frame_of_reference": None}}, "4x4"),
        ({"run": {"pilot": "unknown"}}, "cannot be right"),
        ({"run": {**RUN.to_dict(), "history": "abc"}}, "history is .* not 'abc'"),
        ({"run": {**RUN.to_dict(), "model": 3}}, "model is str, not 3"),
        ({"run": None}, "cannot be right"),
        ({"schema_version": True}, "schema version True"),
        ({"series_uid": "9.9"}, "series_uid is '9.9', but '1.2.840.1' in the run"),
        ({"min_score": 10**400}, "cannot be right"),
        ({"findings": [_finding(x_mm=10**400)]}, "cannot be right"),
        (
            {"grid": {"shape": [10**400] * 3, "affine": [[10**400] * 4] * 4, "frame_of_reference": None}},
            "cannot be right",
        ),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_and_the_error_says_why_and_where(detection, tmp_path, changes, said):
    path = _altered(detection, tmp_path, **changes)
    with pytest.raises(ReadError, match=said) as refusal:
        read_detection(path)
    assert str(path) in str(refusal.value)


def test_a_deeply_nested_file_is_refused_by_name(tmp_path):
    path = tmp_path / "findings.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ReadError, match=r"findings\.json is nested too deeply"):
        read_detection(path)


def test_what_a_later_version_adds_to_the_file_is_passed_over(detection, tmp_path):
    path = _altered(detection, tmp_path, run={**RUN.to_dict(), "carbon_g": 0.2}, colour="red")
    assert read_detection(path).run == RUN


def test_a_missing_a_cut_and_a_foreign_file_are_refused_by_name(detection, tmp_path):
    with pytest.raises(ReadError, match=r"nowhere\.json cannot be read"):
        read_detection(tmp_path / "nowhere.json")
    path = write_detection(detection, tmp_path)
    path.write_text(path.read_text()[:200])
    with pytest.raises(ReadError, match="not JSON"):
        read_detection(path)
    path.write_text("[1, 2]")
    with pytest.raises(ReadError, match="not a findings file"):
        read_detection(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReadError, match="not JSON"):
        read_detection(path)
