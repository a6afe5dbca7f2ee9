from __future__ import annotations

from pathlib import Path

from tomolens.core.series import FolderScan, PassedOver, Problem, Series

CHEST = Series("1.2.1", "1.1", "CT", (), (275, 512, 512), (1.0, 0.78, 0.78), "CHEST <lung>", 3)
GAP = Problem("missing-slice", "1 slice missing between -120.0 and -117.5 mm", refused=True)
NOTE = Problem("duplicate-instances", "2 instances twice")


def test_a_series_is_labelled_as_a_radiologist_lists_it() -> None:
    assert CHEST.label == "3  CHEST <lung>: CT, 512 x 512 x 275 at 0.78 x 0.78 x 1.00 mm"


def test_a_series_without_number_name_or_spacing_has_a_label_too() -> None:
    bare = Series("1.2.2", "1.1", "MR", (), (1, 64, 64), None, part=2)
    assert bare.label == "(no description) part 2: MR, 64 x 64 x 1"


def test_a_series_is_refused_where_one_of_its_problems_refuses_it() -> None:
    assert Series("1", "1", "CT", (), (9, 9, 9), None, problems=(NOTE, GAP)).refused
    assert not Series("1", "1", "CT", (), (9, 9, 9), None, problems=(NOTE,)).refused


def test_a_folder_scan_is_a_sequence_of_series_that_also_knows_what_it_passed_over() -> None:
    passed_over = (PassedOver(Path("DICOMDIR"), "a directory, not an image"),)
    scan = FolderScan(Path("study"), (CHEST,), passed_over)
    assert list(scan) == [CHEST]
    assert scan[0] is CHEST
    assert scan[:1] == (CHEST,)
    assert len(scan) == 1
    assert not FolderScan(Path("empty"), ())


def test_the_notebook_lists_series_and_problems_and_escapes_what_headers_say() -> None:
    problem = Series("1", "1", "CT", (), (9, 9, 9), None, problems=(GAP,))
    html = FolderScan(Path("study"), (CHEST, problem))._repr_html_()
    assert "CHEST &lt;lung&gt;" in html
    assert GAP.message in html
    assert "0 files passed over" in html
