from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.grids import grids
from tomolens.core.errors import ContractError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.run import Run
from tomolens.core.segmentation import Segmentation
from tomolens.io.read import read_volume
from tomolens.io.segmentations import read_record, read_segmentation, write_segmentation
from tomolens.phantoms.markers import marked_volume, marker_centers
from tomolens.pipelines.segment import segment
from tomolens.testing import FAKE_CARD, FakeSegmenter

RUN = Run("net", "1.0", "a" * 64, {"overlap": 0.25}, "1.2.3", history=("read 16 slices",))
GRID = Grid.from_axes((16, 24, 28), (2.5, 1.5, 1.2), (-20.0, -18.0, -300.0), frame_of_reference="1.9.9")
TILT = np.radians(18.5)
TILTED = Grid.from_axes(
    (16, 24, 28), (2.5, 1.5, 1.5), directions=((0, -np.sin(TILT), np.cos(TILT)), (0, 1, 0), (1, 0, 0))
)
TURNS = {
    "axial": lambda v: v,
    "sagittal": lambda v: v.permuted((2, 0, 1)),
    "flipped": lambda v: v.flipped(0).flipped(2),
    "coronal, flipped": lambda v: v.permuted((1, 0, 2)).flipped(1),
}


def same(one: Segmentation, other: Segmentation) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and one.names == other.names
        and one.grid.same_place(other.grid, 0)
        and one.run == other.run
        and one.structures == other.structures
    )


@settings(max_examples=15)
@given(grids(), st.sampled_from([(np.uint8, 3), (np.uint16, 300), (np.uint16, 65535)]))
def test_a_segmentation_on_any_grid_is_read_back_as_it_was_written(tmp_path_factory, grid, kind) -> None:
    dtype, last = kind
    labels = (np.arange(np.prod(grid.shape)).reshape(grid.shape) % 3 * (last // 2)).astype(dtype)
    made = Segmentation(labels, {last // 2: "a", last // 2 * 2: "b", last: "c"}, grid, RUN)
    folder = tmp_path_factory.mktemp("made")
    assert same(read_segmentation(write_segmentation(made, folder)), made)
    assert same(read_segmentation(folder), made)


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_other_programs_see_each_label_where_it_is_in_the_patient(tmp_path, turn) -> None:
    scan = turn(marked_volume(GRID))
    write_segmentation(segment(scan, FakeSegmenter()), tmp_path)
    image = sitk.ReadImage(str(tmp_path / "segmentation.nii.gz"))
    for side, center in marker_centers(GRID).items():
        index = image.TransformPhysicalPointToIndex(center.tolist())
        assert image.GetPixel(*index) == (2 if side in "LRA" else 1), side
    assert image.GetPixelIDValue() == sitk.sitkUInt8


def test_a_sheared_grid_keeps_its_shear_in_the_sform(tmp_path) -> None:
    write_segmentation(segment(marked_volume(TILTED), FakeSegmenter()), tmp_path)
    image = nib.load(tmp_path / "segmentation.nii.gz")
    ras = np.diag([-1, -1, 1, 1]) @ TILTED.affine[:, [2, 1, 0, 3]]
    np.testing.assert_allclose(image.get_sform(), ras, atol=1e-4)
    assert image.header["qform_code"] == 0
    assert read_segmentation(tmp_path).grid.is_sheared


def test_the_json_says_what_each_label_is_and_how_much_of_it_there_is(tmp_path) -> None:
    made = segment(marked_volume(GRID), FakeSegmenter({1: "soft", 2: "dense", 3: "metal"}))
    content = json.loads(write_segmentation(made, tmp_path).read_text())
    assert (content["schema"], content["schema_version"]) == ("tomolens/segmentation", 1)
    assert "Research use only" in content["notice"]
    assert [(s["label"], s["name"], s["voxels"] > 0) for s in content["structures"]] == [
        (1, "soft", True),
        (2, "dense", True),
        (3, "metal", False),
    ]
    assert content["structures"][0]["volume_ml"] == pytest.approx(content["structures"][0]["voxels"] * 0.0045)
    with (tmp_path / "volumes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["soft", "dense", "metal"]
    assert float(rows[1]["volume_ml"]) == pytest.approx(made.structures[1].volume_ml, abs=5e-4)
    assert float(rows[2]["volume_ml"]) == 0


def test_the_record_says_the_same_without_the_voxels(tmp_path) -> None:
    made = segment(marked_volume(GRID), FakeSegmenter())
    record = read_record(write_segmentation(made, tmp_path))
    assert (record.structures, record.found, record.run) == (made.structures, made.found, made.run)
    assert len(record) == 2


def test_no_model_takes_a_written_segmentation_for_a_scan(tmp_path) -> None:
    write_segmentation(segment(marked_volume(GRID), FakeSegmenter()), tmp_path)
    with pytest.raises(ContractError, match="it is SEG"):
        FAKE_CARD.input.check(read_volume(tmp_path / "segmentation.nii.gz"))


def altered(folder, change) -> None:
    path = folder / "segmentation.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda f: (f / "segmentation.json").unlink(), "cannot be read"),
        (lambda f: (f / "segmentation.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "segmentation.json").write_text("{}"), "is not a segmentation file"),
        (lambda f: altered(f, lambda c: c.update(schema_version=2)), "reads 1 to 1"),
        (lambda f: altered(f, lambda c: c.pop("structures")), "lacks the key 'structures'"),
        (lambda f: altered(f, lambda c: c["grid"].update(shape=[1, 2])), "cannot be right"),
        (lambda f: altered(f, lambda c: c.update(series_uid="9")), "series_uid is '9'"),
        (lambda f: (f / "segmentation.nii.gz").unlink(), "segmentation.nii.gz is missing"),
        (lambda f: (f / "segmentation.nii.gz").write_bytes(b"no"), "altered since"),
    ],
)
def test_a_damaged_segmentation_is_refused_by_name(tmp_path, damage, why) -> None:
    write_segmentation(segment(marked_volume(GRID), FakeSegmenter()), tmp_path)
    damage(tmp_path)
    with pytest.raises(ReadError, match=why):
        read_segmentation(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["structures"][0].update(voxels=1),
        lambda c: c["structures"].pop(),
        lambda c: c["grid"]["affine"][0].__setitem__(3, 5.0),
    ],
)
def test_a_json_that_is_not_that_of_its_image_is_refused(tmp_path, change) -> None:
    write_segmentation(segment(marked_volume(GRID), FakeSegmenter()), tmp_path)
    altered(tmp_path, change)
    with pytest.raises(ReadError, match="cannot be right"):
        read_segmentation(tmp_path)
