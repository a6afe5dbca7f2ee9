from __future__ import annotations

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from tests.cli import scans
from tests.cli.fakes import FINDINGS
from tomolens import read_detection, write_volume
from tomolens.core.finding import RESEARCH_USE
from tomolens.phantoms.markers import marked_volume

pytestmark = pytest.mark.usefixtures("fake_models")


def rows(out):
    with (out / "summary.csv").open(newline="") as file:
        return {row["series"].rpartition("-")[0]: row for row in csv.DictReader(file)}


def statuses(out):
    return {name: row["status"] for name, row in rows(out).items()}


def folders(out):
    return sorted(path.name.rpartition("-")[0] for path in out.iterdir() if path.is_dir())


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def study(tmp_path):
    """Two good CT at different depths, and all that may stand beside them."""
    root = tmp_path / "scans"
    scans.ct(root / "a" / "deep" / "er", seed=10, description="Lung 1.0 B60f")
    scans.ct(root / "b", seed=11, description="Mediastinum")
    scans.ct_with_a_gap(root / "b")
    scans.ct_cut_short(root / "c")
    scans.mr(root / "c", seed=13)
    scans.scout(root / "scout")
    (root / "notes.txt").write_text("not an image")
    return root


def test_every_ct_series_at_any_depth_gets_a_folder_with_its_findings(tomolens, study, out):
    result = tomolens("detect", study, "-o", out)
    assert result.exit_code == 1
    assert statuses(out) == {
        "Lung-1-0-B60f": "done",
        "Mediastinum": "done",
        "Gap": "failed",
        "Cut": "failed",
        "T2": "refused",
        "Topogram": "refused",
    }
    for folder in out.glob("Lung-*"):
        assert {path.name for path in folder.iterdir()} == {
            "findings.json",
            "findings.csv",
            "montage.png",
            "series.json",
        }
    assert "2 done, 2 refused, 2 failed" in result.stdout
    assert str(out / "index.html") in result.stdout


def test_a_study_without_a_fault_ends_with_zero_though_mr_and_a_scout_stand_beside_the_ct(tomolens, tmp_path, out):
    scans.ct(tmp_path / "scans" / "ct")
    scans.mr(tmp_path / "scans" / "mr")
    scans.scout(tmp_path / "scans" / "scout")
    assert tomolens("detect", tmp_path / "scans", "-o", out).exit_code == 0
    assert "it is MR, the model takes CT" in rows(out)["T2"]["message"]
    assert "scout" in rows(out)["Topogram"]["message"]


def test_the_csv_holds_the_findings_surest_first_in_patient_mm(tomolens, tmp_path, out):
    tomolens("detect", scans.ct(tmp_path / "ct"), "-o", out)
    (table,) = out.glob("*/findings.csv")
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    columns = ["series_uid", "finding", "score", "x_mm", "y_mm", "z_mm", "diameter_mm"]
    assert list(first)[: len(columns)] == columns
    assert (first["finding"], second["finding"]) == ("1", "2")
    assert [float(first[name]) for name in columns[2:]] == pytest.approx([0.9877, 10.0, 0.0, -282.0, 6.12], abs=1e-9)
    assert first["series_uid"] == rows(out)["Thorax-1-0"]["series_uid"]


def test_the_json_holds_every_candidate_exactly_and_how_it_was_found(tomolens, tmp_path, out):
    tomolens("detect", scans.ct(tmp_path / "ct"), "-o", out, "--min-score", "0.7")
    (folder,) = out.glob("Thorax*")
    detection = read_detection(folder)
    assert detection.candidates == FINDINGS
    assert len(detection) == 1
    assert detection.run.options["min_score"] == 0.7
    assert detection.run.model == "fake"
    assert json.loads((folder / "series.json").read_text())["request"]["min_score"] == 0.7


def test_no_file_that_is_written_names_the_patient(tomolens, study, out):
    tomolens("detect", study, "-o", out)
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        content = path.read_bytes()
        assert not [word for word in (b"Doe", b"Jane", b"19420229", b"MRN-4711") if word in content], path


def test_a_bad_series_leaves_an_error_that_says_why_and_the_page_says_it_too(tomolens, study, out):
    tomolens("detect", study, "-o", out)
    (folder,) = out.glob("Gap-*")
    assert [path.name for path in folder.iterdir()] == ["error.txt"]
    text = (folder / "error.txt").read_text()
    assert "1 slice is missing" in text.splitlines()[0]
    assert "Traceback" in text
    assert "1 slice is missing" in (out / "index.html").read_text()
    assert "1 slice is missing" in rows(out)["Gap"]["message"]


def test_finished_series_are_skipped_without_loading_the_model(tomolens, study, out, fake_models):
    tomolens("detect", study, "-o", out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/findings.json")}
    scans.ct(study / "new", seed=20, description="New")
    tomolens("detect", study, "-o", out)
    assert len(fake_models.loads) == 2
    after = statuses(out)
    assert (after["Lung-1-0-B60f"], after["Mediastinum"], after["New"]) == ("skipped", "skipped", "done")
    assert (after["Gap"], after["Cut"]) == ("failed", "failed")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_call_with_nothing_left_to_do_loads_no_model_and_says_so(tomolens, tmp_path, out, fake_models):
    folder = scans.ct(tmp_path / "ct")
    tomolens("detect", folder, "-o", out)
    again = tomolens("detect", folder, "-o", out)
    assert again.exit_code == 0
    assert "1 skipped" in again.stdout
    assert len(fake_models.loads) == 1
    assert rows(out)["Thorax-1-0"]["findings"] == "2"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--min-score", "0.3"], "min_score was 0.5, is 0.3"),
        (["--tilt", "resample"], "tilt was keep, is resample"),
        (["--second-stage", "tiny-second"], "second_stage was none, is tiny-second"),
        (["--again"], "asked for"),
    ],
)
def test_a_finished_series_is_done_again_where_something_else_is_asked_for(tomolens, tmp_path, out, words, why):
    folder = scans.ct(tmp_path / "ct")
    tomolens("detect", folder, "-o", out)
    result = tomolens("detect", folder, "-o", out, *words)
    assert f"done again: {why}" in result.stderr
    assert rows(out)["Thorax-1-0"]["status"] == "done"


def test_a_finished_series_is_done_again_with_new_weights(tomolens, tmp_path, out, fake_models):
    folder = scans.ct(tmp_path / "ct")
    tomolens("detect", folder, "-o", out)
    fake_models.retrain()
    assert "done again: weights_sha256 was" in tomolens("detect", folder, "-o", out).stderr


def test_a_series_that_has_more_slices_by_now_is_done_again(tomolens, tmp_path, out):
    folder = scans.ct(tmp_path / "ct")
    last = (folder / "0-0016.dcm").rename(tmp_path / "0016.dcm")
    tomolens("detect", folder, "-o", out)
    last.rename(folder / "0-0016.dcm")
    assert "done again: files was 15, is 16" in tomolens("detect", folder, "-o", out).stderr


@pytest.mark.parametrize("name", ["findings.json", "series.json", "montage.png"])
def test_a_damaged_result_is_done_again(tomolens, tmp_path, out, name):
    folder = scans.ct(tmp_path / "ct")
    tomolens("detect", folder, "-o", out)
    (damaged,) = out.glob(f"*/{name}")
    damaged.unlink() if name == "montage.png" else damaged.write_text(damaged.read_text()[:40])
    result = tomolens("detect", folder, "-o", out)
    assert (result.exit_code, statuses(out)) == (0, {"Thorax-1-0": "done"})
    assert "done again" in result.stderr
    assert len(read_detection(damaged.parent)) == 2


def test_a_failed_series_is_tried_again_and_its_error_goes_away(tomolens, tmp_path, out):
    folder = scans.ct(tmp_path / "ct")
    gap = (folder / "0-0008.dcm").rename(tmp_path / "0008.dcm")
    assert tomolens("detect", folder, "-o", out).exit_code == 1
    gap.rename(folder / "0-0008.dcm")
    assert tomolens("detect", folder, "-o", out).exit_code == 0
    assert not list(out.glob("*/error.txt"))
    assert "missing" not in (out / "index.html").read_text()


def test_an_error_never_takes_the_place_of_a_good_result_of_the_same(tomolens, tmp_path, out, fake_models):
    folder = scans.ct(tmp_path / "ct")
    tomolens("detect", folder, "-o", out)
    fake_models.detector = replace(fake_models.detector, candidates=None)
    result = tomolens("detect", folder, "-o", out, "--again")
    assert (result.exit_code, statuses(out)) == (1, {"Thorax-1-0": "failed"})
    (kept,) = out.glob("*/findings.json")
    assert len(read_detection(kept)) == 2
    assert not list(out.glob("*/error.txt"))


def test_a_missing_slice_can_be_lived_with_on_request(tomolens, tmp_path, out):
    result = tomolens("detect", scans.ct_with_a_gap(tmp_path / "ct"), "-o", out, "--missing", "keep-largest")
    assert result.exit_code == 0
    assert "1 slice is missing" in (out / "index.html").read_text()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tomolens, study, out, fake_models):
    result = tomolens("detect", study, "-o", out, "--dry-run")
    assert result.exit_code == 1
    assert "Would be: 3 done, 2 refused, 1 failed" in result.stdout
    assert "1 slice is missing" in result.stderr
    assert not out.exists()
    assert not fake_models.loads


def test_the_model_is_loaded_once_on_the_device_that_was_asked_for(tomolens, study, out, fake_models):
    tomolens("detect", study, "-o", out, "--device", "cpu", "--model", "fake")
    assert fake_models.loads == [("fake", "cpu")]


def test_a_nifti_file_and_nifti_files_in_a_folder_are_read(tomolens, tmp_path, out):
    path = write_volume(marked_volume(scans.GRID), tmp_path / "images" / "case 1.nii.gz")
    assert tomolens("detect", path, "-o", out).exit_code == 0
    assert tomolens("detect", path.parent, "-o", out).exit_code == 0
    assert statuses(out) == {"case-1": "skipped"}
    (folder,) = out.glob("case-1-*")
    assert len(read_detection(folder)) == 2


def test_what_macos_writes_beside_an_image_file_is_passed_over(tomolens, tmp_path, out):
    path = write_volume(marked_volume(scans.GRID), tmp_path / "images" / "case.nii.gz")
    path.with_name("._case.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(4092))
    assert tomolens("detect", path.parent, "-o", out).exit_code == 0
    assert statuses(out) == {"case": "done"}


def test_the_findings_of_an_image_file_name_it(tomolens, tmp_path, out):
    tomolens("detect", write_volume(marked_volume(scans.GRID), tmp_path / "case 1.nii.gz"), "-o", out)
    (folder,) = out.glob("case-1-*")
    assert read_detection(folder).run.source == "case 1.nii.gz"


def test_files_of_one_name_in_two_folders_are_two_patients_and_both_are_read(tomolens, tmp_path, out):
    for patient in ("A", "B"):
        path = write_volume(marked_volume(scans.GRID), tmp_path / patient / "scan.nii.gz")
        assert "1 done" in tomolens("detect", path, "-o", out).stdout
    assert folders(out) == ["scan", "scan"]
    assert "1 skipped" in tomolens("detect", tmp_path / "A", "-o", out).stdout


def test_an_image_file_that_was_written_anew_is_read_anew(tomolens, tmp_path, out):
    path = write_volume(marked_volume(scans.GRID), tmp_path / "scan.nii")
    tomolens("detect", path, "-o", out)
    os.utime(path, ns=(0, 0))
    assert "done again: fingerprint was" in tomolens("detect", path, "-o", out).stderr


def test_a_header_whose_voxels_lie_in_another_file_is_read_anew_where_that_one_was_written_anew(
    tomolens, tmp_path, out
):
    path = tmp_path / "scan.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(marked_volume(scans.GRID).voxels), path)
    tomolens("detect", path, "-o", out, "--modality", "CT")
    os.utime(tmp_path / "scan.raw", ns=(0, 0))
    assert "done again: fingerprint was" in tomolens("detect", path, "-o", out, "--modality", "CT").stderr


def test_dicom_of_equal_names_without_a_series_uid_is_never_taken_for_another_patients(tomolens, tmp_path, out):
    for seed, patient in enumerate(("A", "B")):
        scans.ct(tmp_path / patient, SeriesInstanceUID="", StudyInstanceUID="")
        for file in (tmp_path / patient).iterdir():
            os.utime(file, ns=(0, 0))
        assert "1 done" in tomolens("detect", tmp_path / patient, "-o", out).stdout
        assert len(folders(out)) == seed + 1


def test_a_dicom_series_whose_folder_was_moved_is_skipped_and_one_that_was_written_anew_is_not(tomolens, tmp_path, out):
    folder = scans.ct(tmp_path / "before")
    tomolens("detect", folder, "-o", out)
    moved = folder.rename(tmp_path / "after")
    assert "1 skipped" in tomolens("detect", moved, "-o", out).stdout
    os.utime(moved / "0-0003.dcm", ns=(0, 0))
    assert "done again: fingerprint was" in tomolens("detect", moved, "-o", out).stderr


def test_an_image_file_that_shows_no_hu_is_refused_unless_the_user_knows_better(tomolens, tmp_path, out):
    path = tmp_path / "clipped.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(scans.GRID.shape, np.int16)), path)
    assert tomolens("detect", path, "-o", out).exit_code == 0
    assert statuses(out) == {"clipped": "refused"}
    assert "it is MR" in rows(out)["clipped"]["message"]
    assert tomolens("detect", path, "-o", out, "--modality", "CT").exit_code == 0
    assert statuses(out) == {"clipped": "done"}


def test_a_folder_without_an_image_ends_with_one_and_says_so(tomolens, tmp_path, out):
    (tmp_path / "empty").mkdir()
    result = tomolens("detect", tmp_path / "empty", "-o", out)
    assert result.exit_code == 1
    assert "no image series" in result.stdout
    assert not out.exists()


def test_an_empty_series_uid_and_an_empty_description_still_have_a_name_of_their_own(tomolens, tmp_path, out):
    root = tmp_path / "scans"
    scans.ct(root / "a", seed=1, description="", SeriesInstanceUID="")
    scans.ct(root / "b", seed=2, description="", SeriesInstanceUID="")
    assert tomolens("detect", root, "-o", out).exit_code == 0
    assert folders(out) == ["series", "series"]
    again = tomolens("detect", root, "-o", out)
    assert "2 skipped" in again.stdout


def test_a_name_from_a_header_can_neither_leave_the_folder_nor_become_markup(tomolens, tmp_path, out):
    root = tmp_path / "scans"
    scans.ct(root / "a", seed=1, description="../../<script>alert(1)</script>")
    scans.ct(root / "b", seed=2, description="..")
    assert tomolens("detect", root, "-o", out).exit_code == 0
    assert folders(out) == ["script-alert-1-script", "series"]
    assert "<script" not in (out / "index.html").read_text()
    assert "&lt;script&gt;" in (out / "index.html").read_text()


def test_the_names_do_not_depend_on_what_else_lies_in_the_folder(tomolens, study, out, tmp_path):
    tomolens("detect", study, "-o", out)
    alone = tmp_path / "alone"
    tomolens("detect", study / "b", "-o", alone)
    assert {p.name for p in alone.glob("Medi*")} == {p.name for p in out.glob("Medi*")}


def test_the_page_gathers_the_series_of_every_call(tomolens, tmp_path, out):
    tomolens("detect", scans.ct(tmp_path / "a", seed=1, description="First"), "-o", out)
    tomolens("detect", scans.ct(tmp_path / "b", seed=2, description="Second"), "-o", out)
    page = (out / "index.html").read_text()
    assert "First" in page
    assert "Second" in page
    assert RESEARCH_USE in page


def test_the_summary_as_json_counts_every_status(tomolens, study, out):
    tomolens("detect", study, "-o", out)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["schema"], summary["schema_version"], summary["interrupted"]) == ("tomolens/summary", 1, False)
    assert summary["counts"] == {"done": 2, "skipped": 0, "refused": 2, "failed": 2}
    assert (summary["series_found"], summary["files_passed_over"]) == (6, 1)
    done = next(row for row in summary["series"] if row["status"] == "done")
    assert done["seconds"] > 0
    assert done["findings"] == 2


def test_without_a_terminal_each_series_is_one_plain_line(tomolens, study, out):
    lines = tomolens("detect", study, "-o", out).stderr.splitlines()
    assert len(lines) == 1 + 6
    assert lines[0].endswith("6 series or image files; 1 other file (tomolens info says why)")
    assert [line[:6] for line in lines[1:]] == [f"[{n}/6] " for n in range(1, 7)]
    assert "\x1b" not in "".join(lines)


def test_wrong_usage_ends_with_two_and_writes_nothing(tomolens, tmp_path, out, monkeypatch):
    folder = scans.ct(tmp_path / "ct")
    (tmp_path / "file").write_text("")
    assert tomolens("detect", tmp_path / "nowhere", "-o", out).exit_code == 2
    assert tomolens("detect", folder).exit_code == 2
    assert tomolens("detect", folder, "-o", out, "--min-score", "2").exit_code == 2
    assert tomolens("detect", folder, "-o", out, "--tilt", "drop").exit_code == 2
    assert tomolens("detect", folder, "-o", tmp_path / "file").exit_code == 2
    assert not out.exists()


def test_an_unknown_model_and_an_unknown_device_are_wrong_usage_and_the_error_says_what_there_is(
    tomolens, tmp_path, out, monkeypatch
):
    folder = scans.ct(tmp_path / "ct")
    monkeypatch.undo()
    result = tomolens("detect", folder, "-o", out, "--model", "resnet-9000")
    assert result.exit_code == 2
    assert "There is no model 'resnet-9000'" in result.stderr
    assert not out.exists()


def test_a_volume_of_which_nothing_but_noise_is_known_gets_a_picture_without_findings(
    tomolens, tmp_path, out, fake_models
):
    fake_models.detector = replace(fake_models.detector, candidates=())
    assert tomolens("detect", scans.ct(tmp_path / "ct"), "-o", out).exit_code == 0
    assert "No finding reaches a score of 0.50" in (out / "index.html").read_text()
    (montage,) = out.glob("*/montage.png")
    assert montage.stat().st_size > 1000


def test_an_output_folder_that_cannot_be_written_ends_with_one_clear_line(tomolens, tmp_path):
    (tmp_path / "file").write_text("")
    result = tomolens("detect", scans.ct(tmp_path / "ct"), "-o", tmp_path / "file" / "results")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert str(tmp_path / "file") in result.stderr
