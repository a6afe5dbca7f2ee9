from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from tests.cli import scans
from tests.cli.test_detect import rows, statuses
from tomolens import read_volume, write_volume
from tomolens.core.finding import RESEARCH_USE
from tomolens.io.segmentations import read_segmentation
from tomolens.phantoms.markers import marked_volume, marker_centers
from tomolens.testing import FAKE_SEGMENTATION_CARD, FakeSegmenter

pytestmark = pytest.mark.usefixtures("fake_models")

MODEL = FAKE_SEGMENTATION_CARD.name


@pytest.fixture
def out(tmp_path):
    return tmp_path / "labels"


@pytest.fixture
def segment(tomolens, out):
    return lambda source, *words: tomolens("segment", source, "-o", out, "--model", MODEL, *words)


@pytest.fixture
def study(tmp_path):
    root = tmp_path / "scans"
    scans.ct(root / "a" / "deep", seed=10, description="Lung 1.0 B60f")
    scans.ct_with_a_gap(root / "b")
    scans.mr(root / "c", seed=13)
    scans.scout(root / "scout")
    return root


def test_every_series_that_the_model_takes_gets_its_labels_and_the_others_a_reason(segment, study, out):
    result = segment(study)
    assert result.exit_code == 1
    assert statuses(out) == {"Lung-1-0-B60f": "done", "Gap": "failed", "T2": "refused", "Topogram": "refused"}
    (folder,) = out.glob("Lung-*")
    assert {path.name for path in folder.iterdir()} == {
        "segmentation.nii.gz",
        "segmentation.json",
        "volumes.csv",
        "montage.png",
        "series.json",
    }
    assert "1 done, 2 refused, 1 failed" in result.stdout
    assert rows(out)["Lung-1-0-B60f"]["structures"] == "2"
    assert "2 structures" in result.stderr
    assert "1 slice is missing" in (out / "index.html").read_text()


def test_the_labels_lie_on_the_scan_in_the_patient(segment, tmp_path, out):
    source = scans.ct(tmp_path / "ct")
    segment(source)
    (image,) = out.glob("*/segmentation.nii.gz")
    labels = sitk.ReadImage(str(image))
    for side, center in marker_centers(scans.GRID).items():
        assert labels.GetPixel(*labels.TransformPhysicalPointToIndex(center.tolist())) == (2 if side in "LRA" else 1)
    made, volume = read_segmentation(image.parent), read_volume(source)
    assert made.grid.same_place(volume.grid)
    assert made.run.series_uid == volume.series.uid
    np.testing.assert_array_equal(made.labels > 0, volume.voxels >= 0)


def test_a_volume_that_is_stored_sagittal_keeps_its_labels_where_they_are(segment, tmp_path, out):
    volume = marked_volume(scans.GRID).permuted((2, 0, 1)).flipped(0)
    segment(write_volume(volume, tmp_path / "case 1.nii.gz"))
    (folder,) = out.glob("case-1-*")
    made = read_segmentation(folder)
    np.testing.assert_array_equal(made.labels == 2, volume.voxels >= 450)
    assert made.grid.same_place(volume.grid)
    assert made.run.source == "case 1.nii.gz"


def test_volumes_stand_in_the_csv_the_json_and_on_the_page(segment, tmp_path, out):
    segment(scans.ct(tmp_path / "ct"))
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    with (folder / "volumes.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    content = json.loads((folder / "segmentation.json").read_text())
    assert [row["name"] for row in table] == [s["name"] for s in content["structures"]] == ["soft", "dense"]
    page = (out / "index.html").read_text()
    for row, structure in zip(table, content["structures"], strict=True):
        assert float(row["volume_ml"]) == pytest.approx(structure["volume_ml"], abs=5e-4)
        assert f"{structure['volume_ml']:.1f}</td>" in page
        assert structure["colour"] in page
    assert RESEARCH_USE in page
    assert (folder / "montage.png").stat().st_size > 1000


def test_where_nothing_was_segmented_the_page_says_so(segment, tmp_path, out, fake_models):
    fake_models.segmenter = FakeSegmenter({1: "metal"}, {1: 9000.0})
    assert segment(scans.ct(tmp_path / "ct")).exit_code == 0
    assert "Nothing was segmented: none of the model's 1 structures was found." in (out / "index.html").read_text()


def test_finished_series_are_skipped_without_loading_the_model_and_damaged_ones_done_again(
    segment, tmp_path, out, fake_models
):
    source = scans.ct(tmp_path / "ct")
    segment(source)
    assert "1 skipped" in segment(source).stdout
    assert fake_models.loads == [(MODEL, "auto")]
    (image,) = out.glob("*/segmentation.nii.gz")
    image.write_bytes(image.read_bytes()[:-20])
    assert "altered since it was written" in segment(source, "--device", "cpu").stderr
    assert len(fake_models.loads) == 2
    assert "1 skipped" in segment(source).stdout
    fake_models.retrain()
    assert "done again: weights_sha256 was" in segment(source).stderr


def test_an_answer_that_cannot_be_right_fails_its_series_alone(segment, study, out, fake_models):
    fake_models.segmenter = FakeSegmenter({1: "soft"}, {1: 0.0, 2: 450.0})
    assert segment(study / "a").exit_code == 1
    assert "Labels without a name: 2; named are 1 soft" in rows(out)["Lung-1-0-B60f"]["message"]
    (folder,) = out.glob("Lung-*")
    assert [path.name for path in folder.iterdir()] == ["error.txt"]


def test_no_file_that_is_written_names_the_patient(segment, study, out):
    segment(study)
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [word for word in (b"Doe", b"Jane", b"19420229", b"MRN-4711") if word in content], path


def test_results_of_another_command_are_never_written_over(tomolens, segment, tmp_path, out):
    source = scans.ct(tmp_path / "ct")
    tomolens("detect", source, "-o", out)
    refused = segment(source)
    assert refused.exit_code == 2
    assert "holds results of `tomolens detect`" in refused.stderr
    assert list(out.glob("*/findings.json"))
    assert not list(out.glob("*/segmentation.json"))
    other = tmp_path / "other"
    tomolens("segment", source, "-o", other, "--model", MODEL)
    assert "holds results of `tomolens segment`" in tomolens("detect", source, "-o", other).stderr


def test_a_dry_run_writes_nothing(segment, study, out, fake_models):
    assert "Would be: 1 done, 2 refused, 1 failed" in segment(study, "--dry-run").stdout
    assert not out.exists()
    assert not fake_models.loads


def test_a_model_that_does_something_else_or_reads_several_images_is_wrong_usage(
    tomolens, segment, tmp_path, out, fake_models
):
    source = scans.ct(tmp_path / "ct")
    wrong = tomolens("segment", source, "-o", out, "--model", "fake")
    assert (wrong.exit_code, wrong.stderr.strip()) == (2, "Error: fake does detection; a segmentation model is needed.")
    assert "a detector is needed" in tomolens("detect", source, "-o", out, "--model", MODEL).stderr
    several = replace(FAKE_SEGMENTATION_CARD.input, channels=("T1", "FLAIR"))
    fake_models.segmenter = FakeSegmenter(card=replace(FAKE_SEGMENTATION_CARD, input=several))
    assert "reads 2 images of one patient together (T1, FLAIR)" in segment(source).stderr
    assert tomolens("segment", source, "-o", out).exit_code == 2
    assert not out.exists()
