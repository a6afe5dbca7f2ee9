"""Tables of marks and truth: what is joined with what, and what is refused with which line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomolens.core.errors import ReadError
from tomolens.core.evaluation import evaluate
from tomolens.core.finding import Detection, Finding
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.io.tables import write_detection, write_table
from tomolens.io.truth import Joined, luna16_scans, own_scans

GRID = Grid.from_axes((40, 50, 60))
ANNOTATIONS = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,1,2,3,8.5\n1.2,30,2,3,4\n1.3,-5,0,0,12\n"
EXCLUDED = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,50,50,50,-1\n1.4,0,0,0,3\n"
MARKS = "seriesuid,coordX,coordY,coordZ,probability\n1.2,1,2,3,0.9\n1.3,100,0,0,0.25\n1.2,50,51,50,0.5\n"
TRUTH = "series_uid,x_mm,y_mm,z_mm,diameter_mm,texture\n1.2,1,2,3,8.5,solid\n1.2,30,2,3,4,\n1.3,,,,,\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def luna16(folder: Path, marks: str = MARKS, series: str | None = None, **tables: str) -> Joined:
    annotations = write(folder, "annotations.csv", tables.get("annotations", ANNOTATIONS))
    excluded = write(folder, "annotations_excluded.csv", tables.get("excluded", EXCLUDED))
    listed = write(folder, "seriesuids.csv", series) if series is not None else None
    return luna16_scans(write(folder, "marks.csv", marks), annotations, excluded, listed)


def result(folder: Path, uid: str, *findings: Finding, source: str = "", min_score: float = 0.5) -> Path:
    detection = Detection(findings, min_score, GRID, Run("fake", "1.0", "a" * 64, series_uid=uid, source=source))
    return write_detection(detection, folder)


def own(folder: Path, truth: str = TRUTH) -> Joined:
    return own_scans(folder / "results", write(folder, "truth.csv", truth))


def test_marks_nodules_and_excluded_findings_meet_scan_by_scan(tmp_path: Path) -> None:
    joined = luna16(tmp_path, series="1.2\n1.3\n1.4\n1.5\n")
    assert [scan.name for scan in joined.scans] == ["1.2", "1.3", "1.4", "1.5"]
    assert [(len(s.scores), len(s.nodules), len(s.excluded)) for s in joined.scans] == [
        (2, 2, 1),
        (1, 1, 0),
        (0, 0, 1),
        (0, 0, 0),
    ]
    first = joined.scans[0]
    np.testing.assert_array_equal(first.marks_lps_mm, [(1, 2, 3), (50, 51, 50)])
    np.testing.assert_array_equal(first.nodules.diameters_mm, [8.5, 4])
    assert first.excluded.diameters_mm.tolist() == [10]
    assert first.labels == {"size": ("6 to 10 mm", "under 6 mm")}
    assert joined.notes == ("2 scans have no mark; they count as read",)


def test_without_a_list_the_scans_are_those_of_the_tables_and_it_is_said(tmp_path: Path) -> None:
    joined = luna16(tmp_path)
    assert [scan.name for scan in joined.scans] == ["1.2", "1.3", "1.4"]
    assert "no list of scans was given" in joined.notes[0]


def test_nodules_of_scans_that_are_not_listed_are_left_out_and_counted(tmp_path: Path) -> None:
    joined = luna16(tmp_path, MARKS.replace("1.3,100,0,0,0.25\n", ""), series="seriesuid\n1.2\n")
    assert [scan.name for scan in joined.scans] == ["1.2"]
    assert joined.notes == ("1 nodules are in 1 scans not listed: left out",)


@pytest.mark.parametrize("series", [None, "1.2\n1.3\n1.4\n"])
def test_marks_in_a_scan_that_is_not_listed_are_refused(tmp_path: Path, series: str | None) -> None:
    with pytest.raises(ReadError, match=r"marks scan 9\.9, not listed") as refused:
        luna16(tmp_path, MARKS + "9.9,0,0,0,0.5\n", series)
    assert ("--seriesuids" in str(refused.value)) == (series is None)


@pytest.mark.parametrize("value", ["nan", "inf", "", "high"])
def test_a_probability_that_is_no_finite_number_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(ReadError, match=f"marks.csv, line 3: probability is '{value}'"):
        luna16(tmp_path, MARKS.replace("0.25", value))


def test_a_missing_column_is_refused_with_what_stands_there(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"marks.csv lacks the column probability: its first line has .*score"):
        luna16(tmp_path, MARKS.replace("probability", "score"))
    with pytest.raises(ReadError, match=r"annotations.csv lacks the columns coordX, coordY"):
        luna16(tmp_path, annotations="seriesuid,x,y,coordZ,diameter_mm\n")
    with pytest.raises(ReadError, match="first line has nothing"):
        luna16(tmp_path, marks="")


def test_more_columns_and_another_order_of_them_are_read(tmp_path: Path) -> None:
    annotations = "volume,diameter_mm,coordZ,coordY,coordX,seriesuid\na,8.5,3,2,1,1.2\n"
    joined = luna16(tmp_path, annotations=annotations, excluded=EXCLUDED + "1.3,0,0,0,5\n")
    assert joined.scans[0].nodules.centers_lps_mm.tolist() == [[1, 2, 3]]


def test_a_table_of_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert len(luna16(tmp_path, "\ufeff" + MARKS.replace("\n", "\r\n")).scans[0].scores) == 2


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        ("annotations", ANNOTATIONS + "1.3,-5,0,0,12\n", "annotations.csv, line 5: the same nodule stands in line 4"),
        (
            "annotations",
            ANNOTATIONS + "1.3,-5.0,0.00,0,12\n",
            "annotations.csv, line 5: the same nodule stands in line 4",
        ),
        ("series", "1.2\n1.3\n1.2\n", "seriesuids.csv, line 3: the same series stands in line 1"),
        ("annotations", ANNOTATIONS + "1.3,1,0,0,-1\n", "line 5: diameter_mm is -1, not above 0"),
        ("excluded", EXCLUDED + "1.3,1,0,0,0\n", "line 4: diameter_mm is 0, not above 0"),
        ("annotations", ANNOTATIONS + ",1,0,0,3\n", "line 5: seriesuid is empty"),
        ("marks", MARKS + "1.2,1\n", "line 5: 2 values stand under 5 columns"),
        ("series", "\n", "lists no series"),
    ],
)
def test_a_row_that_cannot_be_right_is_named_by_its_line(tmp_path: Path, table: str, text: str, said: str) -> None:
    with pytest.raises(ReadError, match=said):
        luna16(tmp_path, **{table: text})


def test_the_same_mark_twice_counts_as_in_luna16_s_script_and_is_said(tmp_path: Path) -> None:
    joined = luna16(tmp_path, MARKS + "1.2,1,2,3.0,0.9\n1.3,100,0,0,0.25\n")
    assert [len(scan.scores) for scan in joined.scans] == [3, 2, 0]
    assert joined.notes[-1].startswith("2 marks stand where another mark of their scan does")
    marks = evaluate(joined.scans).marks()
    assert (marks["hits"], marks["doubles"], marks["false_positives"]) == (1, 1, 2)
    assert "stand where" not in "".join(luna16(tmp_path).notes)


def test_the_same_excluded_finding_twice_does_no_harm(tmp_path: Path) -> None:
    assert len(luna16(tmp_path, excluded=EXCLUDED + "1.2,50,50,50,-1\n").scans[0].excluded) == 2


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "marks.png").write_bytes(b"\x89PNG\xff\xfe")
    write(tmp_path, "a.csv", ANNOTATIONS)
    with pytest.raises(ReadError, match=r"marks\.png is not a CSV in UTF-8"):
        luna16_scans(tmp_path / "marks.png", tmp_path / "a.csv", tmp_path / "a.csv", None)


def test_our_results_are_read_down_to_their_floor(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2", Finding((1, 2, 3), 5.0, 0.9), Finding((9, 9, 9), 5.0, 0.1))
    result(tmp_path / "results/b", "1.3")
    write(tmp_path, "annotations.csv", ANNOTATIONS)
    joined = luna16_scans(tmp_path / "results", tmp_path / "annotations.csv", write(tmp_path, "x.csv", EXCLUDED), None)
    assert joined.scans[0].scores.tolist() == [0.9, 0.1]
    assert joined.scans[1].scores.tolist() == []


def test_a_result_without_a_series_is_no_answer_to_luna16(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "", source="scan.nii.gz")
    with pytest.raises(ReadError, match="names no SeriesInstanceUID"):
        luna16_scans(tmp_path / "results", write(tmp_path, "a.csv", ANNOTATIONS), tmp_path / "a.csv", None)


def test_a_folder_without_results_says_why_a_csv_alone_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(ReadError, match=r"holds no findings\.json at any depth, as `tomolens detect` writes it\.$"):
        own(tmp_path)
    detection = Detection((Finding((1, 2, 3), 5.0, 0.9),), 0.5, GRID, Run("fake", "1.0", "a" * 64, series_uid="1.2"))
    write_table(detection, tmp_path / "results" / "findings.csv")
    with pytest.raises(ReadError, match="lacks what lies below the threshold"):
        own(tmp_path)


def test_own_truth_is_joined_with_its_labels_and_scans_without_nodules_count(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2", Finding((1, 2, 3), 5.0, 0.9))
    result(tmp_path / "results/b", "1.3", Finding((1, 2, 3), 5.0, 0.4))
    joined = own(tmp_path)
    assert [(s.name, len(s.scores), len(s.nodules)) for s in joined.scans] == [("1.2", 1, 2), ("1.3", 1, 0)]
    assert joined.scans[0].labels == {"size": ("6 to 10 mm", "under 6 mm"), "texture": ("solid", "not said")}
    assert joined.min_score == 0.5
    assert joined.notes == ()


def test_a_scan_of_the_truth_without_a_result_counts_and_is_said(tmp_path: Path) -> None:
    result(tmp_path / "results/b", "1.3")
    joined = own(tmp_path)
    assert [(s.name, len(s.nodules)) for s in joined.scans] == [("1.2", 2), ("1.3", 0)]
    assert joined.notes == ("scan 1.2 have no result; they count as read, without a mark",)


def test_a_result_that_the_truth_does_not_name_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2")
    result(tmp_path / "results/c", "7.7")
    with pytest.raises(ReadError, match=r"results of scan 7\.7, which .* does not name\. A row with the scan's name"):
        own(tmp_path)


def test_a_scan_may_be_named_by_its_source(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "", Finding((1, 2, 3), 5.0, 0.9), source="scan.nii.gz")
    truth = "source,x_mm,y_mm,z_mm,diameter_mm\nscan.nii.gz,1,2,3,8\n"
    joined = own(tmp_path, truth)
    assert (joined.scans[0].name, len(joined.scans[0].scores)) == ("scan.nii.gz", 1)


@pytest.mark.parametrize(
    "rows", ["1.9,b.nii.gz,1,2,3,5\n,b.nii.gz,4,5,60,7\n", ",b.nii.gz,4,5,60,7\n1.9,b.nii.gz,1,2,3,5\n"]
)
@pytest.mark.parametrize("source", ["a.nii.gz", "b.nii.gz"])
def test_a_scan_that_rows_name_in_two_ways_counts_once(tmp_path: Path, rows: str, source: str) -> None:
    result(tmp_path / "results/a", "", Finding((1, 2, 3), 5.0, 0.9), source=source)
    joined = own(tmp_path, "series_uid,source,x_mm,y_mm,z_mm,diameter_mm\n,a.nii.gz,1,2,3,8\n" + rows)
    assert sorted(len(scan.nodules) for scan in joined.scans) == [1, 2]
    assert sum(len(scan.scores) for scan in joined.scans) == 1


def test_a_source_that_several_series_share_names_none_of_them(tmp_path: Path) -> None:
    truth = "series_uid,source,x_mm,y_mm,z_mm,diameter_mm\n1.2,Thorax,1,2,3,8\n1.3,Thorax,1,2,3,8\n"
    result(tmp_path / "results/a", "1.2", source="Thorax")
    assert [scan.name for scan in own(tmp_path, truth).scans] == ["1.2", "1.3"]
    with pytest.raises(
        ReadError, match=r"truth\.csv, line 4: Thorax names 2 series, e\.g\. 1\.2 and 1\.3; give series_uid"
    ):
        own(tmp_path, truth + ",Thorax,4,5,6,8\n")


def test_a_source_that_names_two_results_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2", source="Thorax")
    result(tmp_path / "results/b", "1.3", source="Thorax")
    with pytest.raises(ReadError, match="Thorax names 2 results"):
        own(tmp_path, "source,x_mm,y_mm,z_mm,diameter_mm\nThorax,1,2,3,8\n")


def test_a_source_that_names_two_scans_of_a_table_of_marks_is_refused(tmp_path: Path) -> None:
    marks, truth = tmp_path / "marks.csv", tmp_path / "truth.csv"
    marks.write_text("series_uid,source,x_mm,y_mm,z_mm,score\n1.2,Thorax,1,2,3,.5\n1.3,Thorax,1,2,3,.5\n")
    truth.write_text("source,x_mm,y_mm,z_mm,diameter_mm\nThorax,1,2,3,8\n")
    with pytest.raises(ReadError, match=r"line 2: Thorax names 2 results.*give series_uid"):
        own_scans(marks, truth)


def test_two_results_of_one_scan_are_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2")
    result(tmp_path / "results/b", "1.2")
    with pytest.raises(ReadError, match=r"are of the same scan, 1\.2"):
        own(tmp_path)


def test_a_scan_with_and_without_nodules_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2")
    with pytest.raises(ReadError, match=r"line 3: says that 1\.2 holds no nodule; line 2 has one"):
        own(tmp_path, "series_uid,x_mm,y_mm,z_mm,diameter_mm\n1.2,1,2,3,8\n1.2,,,,\n")


def test_a_nodule_without_a_diameter_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2")
    with pytest.raises(ReadError, match="line 2: diameter_mm is '', not a finite number"):
        own(tmp_path, "series_uid,x_mm,y_mm,z_mm,diameter_mm\n1.2,1,2,3,\n")


def test_a_truth_that_names_no_scans_is_refused(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2")
    with pytest.raises(ReadError, match="neither of the columns series_uid and source"):
        own(tmp_path, "patient,x_mm,y_mm,z_mm,diameter_mm\n1.2,1,2,3,8\n")


def test_results_with_different_thresholds_have_none_in_common(tmp_path: Path) -> None:
    result(tmp_path / "results/a", "1.2", min_score=0.5)
    result(tmp_path / "results/b", "1.3", min_score=0.7)
    joined = own(tmp_path, TRUTH.replace("texture", "reader"))
    assert joined.min_score is None
    assert joined.notes[0].startswith("the results were made with different thresholds")
    assert joined.notes[1] == "columns of the truth that are not used: reader"


def test_a_csv_of_marks_is_read_too(tmp_path: Path) -> None:
    marks = write(tmp_path, "marks.csv", "source,series_uid,x_mm,y_mm,z_mm,score\na,1.2,1,2,3,0.5\nb,1.2,4,5,6,0.4\n")
    joined = own_scans(marks, write(tmp_path, "truth.csv", TRUTH))
    assert joined.scans[0].scores.tolist() == [0.5, 0.4]
    assert joined.min_score is None


def test_a_csv_of_marks_may_name_a_scan_in_two_ways(tmp_path: Path) -> None:
    marks = write(tmp_path, "marks.csv", "source,series_uid,x_mm,y_mm,z_mm,score\na,1.2,1,2,3,0.5\na,,4,5,6,0.4\n")
    for truth in (TRUTH, "source,x_mm,y_mm,z_mm,diameter_mm\na,1,2,3,8\n"):
        assert own_scans(marks, write(tmp_path, "truth.csv", truth)).scans[0].scores.tolist() == [0.5, 0.4]
