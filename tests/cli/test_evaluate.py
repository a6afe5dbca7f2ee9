"""`tomolens evaluate`: from tables to figures, through the command line."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from tests.io.test_truth import ANNOTATIONS, EXCLUDED, MARKS, TRUTH, result, write
from tomolens.core.finding import Finding

FILES = {"evaluation.json", "froc.csv", "froc.png", "nodules.csv"}


@pytest.fixture
def luna16(tomolens, tmp_path):
    """Score marks by LUNA16's protocol; the scans are 1.2, 1.3, 1.4 and, with nothing in it, 1.5."""

    def run(marks=MARKS, *more):
        tables = {
            "--annotations": write(tmp_path, "annotations.csv", ANNOTATIONS),
            "--excluded": write(tmp_path, "excluded.csv", EXCLUDED),
            "--seriesuids": write(tmp_path, "seriesuids.csv", "1.2\n1.3\n1.4\n1.5\n"),
        }
        options = [word for pair in tables.items() for word in pair]
        return tomolens(
            "evaluate", "luna16", write(tmp_path, "marks.csv", marks), *options, "-o", tmp_path / "out", *more
        )

    return run


@pytest.fixture
def figures(tmp_path):
    return lambda: json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))


def test_the_luna16_protocol_is_scored_and_told(luna16, figures):
    told = luna16()
    assert told.exit_code == 0
    assert "4 scans (2 without a nodule), 3 nodules" in told.stdout
    assert "3 marks: 1 hits, 0 more on the same nodules, 1 false," in told.stdout
    assert "1 on excluded findings" in told.stdout
    assert max(map(len, told.stdout.splitlines()[:-1])) <= 80
    found = figures()
    assert found["froc"]["rates"] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    assert found["froc"]["sensitivity"] == pytest.approx([1 / 3] * 7)
    assert found["froc"]["cpm"] == pytest.approx(1 / 3)
    assert found["froc"]["cpm_low"] == 0
    assert found["scans"] == {"read": 4, "without_nodules": 2}
    assert found["threshold"] is None
    assert found["froc"]["bootstraps"] == 1000


def test_four_files_are_written_and_nothing_else(luna16, tmp_path):
    luna16()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    with Image.open(tmp_path / "out" / "froc.png") as picture:
        assert picture.size[0] > 600
    with (tmp_path / "out" / "froc.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(rows[n]["false_positives_a_scan"]) for n in (0, -1)] == [0.125, 8]
    assert set(rows[0]) == {"false_positives_a_scan", "sensitivity", "low", "high"}


def test_each_nodule_is_listed_with_the_score_it_was_found_with(luna16, tmp_path):
    luna16(MARKS.replace("1.2,1,2,3,0.9", "1.2,1,2,4,0.9"))
    with (tmp_path / "out" / "nodules.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scan"], row["score"], row["away_mm"], row["size"]) for row in rows] == [
        ("1.2", "0.9", "1.0", "6 to 10 mm"),
        ("1.2", "", "", "under 6 mm"),
        ("1.3", "", "", "10 mm and more"),
    ]


def test_the_same_seed_gives_the_same_band_and_the_order_of_rows_decides_nothing(luna16, figures):
    luna16()
    first = figures()["froc"]
    head, *rows = MARKS.splitlines()
    luna16("\n".join([head, *reversed(rows)]))
    assert figures()["froc"] == first
    luna16(MARKS, "--seed", "5")
    assert figures()["froc"]["sensitivity"] == first["sensitivity"]


def test_the_inputs_are_named_with_their_hashes_but_not_where_they_lie(luna16, figures, tmp_path):
    luna16()
    inputs = figures()["inputs"]
    assert set(inputs) == {"marks", "annotations", "excluded", "seriesuids"}
    assert inputs["marks"]["name"] == "marks.csv"
    assert len(inputs["marks"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(inputs)


def test_a_table_that_cannot_be_right_ends_in_one_line_and_writes_nothing(luna16, tmp_path):
    told = luna16(MARKS.replace("0.25", "nan"))
    assert told.exit_code == 1
    assert told.stderr.startswith("Error: ")
    assert "marks.csv, line 3: probability is 'nan'" in told.stderr
    assert "Traceback" not in told.output
    assert not (tmp_path / "out").exists()


def test_scans_without_any_nodule_have_no_sensitivity(tomolens, tmp_path):
    marks = write(tmp_path, "marks.csv", "seriesuid,coordX,coordY,coordZ,probability\n")
    empty = write(tmp_path, "empty.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    listed = write(tmp_path, "listed.csv", "1.2\n")
    words = ["--annotations", empty, "--excluded", empty, "--seriesuids", listed, "-o", tmp_path / "out"]
    told = tomolens("evaluate", "luna16", marks, *words)
    assert told.exit_code == 1
    assert "no nodule in these 1 scans" in told.stderr


@pytest.fixture
def own(tomolens, tmp_path):
    """Score two results of our own: one of two nodules found surely, the other below the threshold; two false marks."""
    result(
        tmp_path / "results/a",
        "1.2",
        Finding((1, 2, 4), 5.0, 0.9),
        Finding((30, 2, 3), 5.0, 0.3),
        Finding((99, 2, 3), 5.0, 0.6),
    )
    result(tmp_path / "results/b", "1.3", Finding((1, 2, 3), 5.0, 0.2))
    truth = write(tmp_path, "truth.csv", TRUTH)
    return lambda *more: tomolens(
        "evaluate", "detection", tmp_path / "results", "--truth", truth, "-o", tmp_path / "out", *more
    )


def test_own_results_are_scored_at_their_own_threshold(own, figures):
    told = own()
    assert told.exit_code == 0
    at = figures()["threshold"]
    assert (at["score"], at["found"], at["missed"], at["false_positives"]) == (0.5, 1, 1, 1)
    assert (at["precision"]["value"], at["sensitivity"]["value"], at["f1"]) == (0.5, 0.5, 0.5)
    assert at["accuracy"] == pytest.approx(1 / 3)
    assert "at a score of 0.5 and above" in told.stdout
    assert "found / (found + missed + false positives)" in told.stdout


def test_candidates_below_the_threshold_carry_the_curve_on(own, figures):
    own()
    assert figures()["froc"]["sensitivity"][-1] == 1
    assert figures()["marks"]["read"] == 4


def test_another_threshold_may_be_asked_for(own, figures):
    own("--threshold", "0.25")
    assert figures()["threshold"]["found"] == 2
    own("--threshold", "0.95")
    at = figures()["threshold"]
    assert (at["found"], at["precision"]["value"], at["f1"]) == (0, None, 0)


def test_sensitivity_is_told_by_size_and_texture(own, figures):
    told = own()
    assert "sensitivity by texture (nodules)" in told.stdout
    groups = figures()["subgroups"]
    assert {label: group["found"] for label, group in groups["texture"].items()} == {"solid": 1, "not said": 0}
    assert {label: group["nodules"] for label, group in groups["size"].items()} == {"under 6 mm": 1, "6 to 10 mm": 1}


def test_a_threshold_that_is_no_number_is_refused(own):
    told = own("--threshold", "nan")
    assert told.exit_code == 1
    assert "finite number, not nan" in told.stderr


def test_results_of_the_command_line_can_be_evaluated(tomolens, tmp_path, fake_models, monkeypatch):
    """From `tomolens detect` to its figures, with a truth that names the file."""
    import numpy as np

    from tests.cli.fakes import FINDINGS
    from tests.cli.scans import GRID
    from tomolens import Volume, write_volume

    write_volume(Volume(np.full(GRID.shape, -800, np.int16), GRID), tmp_path / "scan.nii.gz")
    tomolens("detect", tmp_path / "scan.nii.gz", "-o", tmp_path / "results", "--modality", "CT")
    x, y, z = FINDINGS[0].center_lps_mm
    truth = write(tmp_path, "truth.csv", f"source,x_mm,y_mm,z_mm,diameter_mm\nscan.nii.gz,{x},{y},{z},6\n")
    told = tomolens("evaluate", "detection", tmp_path / "results", "--truth", truth, "-o", tmp_path / "out")
    assert told.exit_code == 0, told.output
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert found["threshold"]["found"] == 1
    assert found["marks"]["read"] == len(FINDINGS)
    assert found["centre_error_mm"] == pytest.approx(0, abs=0.02)
    (table,) = (tmp_path / "results").glob("*/findings.csv")
    told = tomolens("evaluate", "detection", table, "--truth", truth, "-o", tmp_path / "out")
    assert told.exit_code == 0, told.output
    assert "1 scans (0 without a nodule), 1 nodules" in told.stdout
    assert "1 hits" in told.stdout


@pytest.mark.parametrize("words", [[], ["luna16"], ["detection"]], ids=" ".join)
def test_the_help_fits_a_terminal(tomolens, words):
    told = tomolens("evaluate", *words, "--help")
    assert told.exit_code == 0
    assert max(map(len, told.stdout.splitlines())) <= 80


@pytest.mark.parametrize("word", ["seriesuid, coordX", "read as 10 mm", "evaluation.json", "Exit codes"])
def test_the_help_of_luna16_names_its_tables(tomolens, word):
    assert word in tomolens("evaluate", "luna16", "--help").stdout
