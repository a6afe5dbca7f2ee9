"""What a described data set gives, and what is refused before any image is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomolens.core.errors import OptionError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.io.write import write_volume
from tomolens.models.registry import Bundle, find_bundle
from tomolens.training.calibration import kept_out, learned
from tomolens.training.cases import LEAST_MM
from tomolens.training.dataset import Split, read_dataset
from tomolens.training.describe import describe
from tomolens.training.fingerprint import (
    contents,
    differences,
    fingerprint_of_cube,
    fingerprint_of_volume,
    write_contents,
)
from tomolens.training.publish import CONTENTS
from tomolens.training.sides import Seen, check_sides
from tomolens.training.sources import load, load_dataset, nodule_donors, open_dataset

LUNA16 = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


NODULE = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "patient": "p3"}


def chest() -> Volume:
    """Two lungs in a body, 2 mm: small, but lungs are found in it."""
    k, j, i = np.indices((90, 130, 160))
    body = ((j - 65) / 60) ** 2 + ((i - 80) / 76) ** 2 < 1
    voxels = np.where(body, 40, -1000)
    for middle in (45, 115):
        lung = ((k - 45) / 38) ** 2 + ((j - 65) / 42) ** 2 + ((i - middle) / 27) ** 2 < 1
        voxels[lung] = -860
    voxels = voxels + np.random.default_rng(0).normal(0, 12, voxels.shape)
    grid = Grid.from_axes((90, 130, 160), (2.0, 2.0, 2.0))
    return Volume(voxels.astype(np.int16), grid, Unit.HU, "CT")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("chest") / "chest.nii"
    write_volume(chest(), file)
    return file


@pytest.fixture
def folder(tmp_path: Path, drawn: Path) -> Path:
    """A data set as a user brings it: two scans, LUNA16's tables, a nodule with its mask and a description."""
    for name in ("a", "b"):
        shutil.copyfile(drawn, tmp_path / f"{name}.nii")
    (tmp_path / "annotations.csv").write_text(LUNA16 + "a,90,130,90,8\na,230,130,80,-1\nother,0,0,0,5\n")
    (tmp_path / "annotations_excluded.csv").write_text(LUNA16 + "b,90,130,90,-1\n")
    distance = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0)
    for name, voxels in (("image", np.where(distance < 5, 30, -850)), ("mask", (distance < 5) * 1)):
        volume = Volume(voxels.astype(np.int16), Grid.from_axes((21, 21, 21)), Unit.HU, "CT")
        write_volume(volume, tmp_path / f"nodule_{name}.nii")
    describes(tmp_path)
    return tmp_path


def describes(folder: Path, **sections: Any) -> Path:
    """Write a description with some sections changed."""
    nodule = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "patient": "p3", "texture": "part-solid"}
    whole = {
        "format": "tomolens-dataset-1",
        "scans": [
            {"path": "a.nii", "patient": "p1", "thickness_mm": 4},
            {"path": "b.nii", "patient": "p2", "split": "val"},
        ],
        "nodules": ["annotations.csv"],
        "excluded": ["annotations_excluded.csv"],
        "nodule_volumes": [nodule],
    }
    file = folder / "dataset.json"
    file.write_text(json.dumps({**whole, **sections}))
    return file


def cubes_in(folder: Path, *patients: str) -> dict[str, Any]:
    """An npz with a nodule of each of these patients, and the object that describes it."""
    mask = np.linalg.norm(np.indices((51, 51, 51)) - 25, axis=0) < 5
    image = np.where(mask, 30, -850).astype(np.int16)
    count = len(patients)
    names = [f"cube of {patient}" for patient in patients]
    np.savez(folder / "cubes.npz", image=[image] * count, mask=[mask] * count, name=names, patient=list(patients))
    return {"path": "cubes.npz"}


def test_scans_marks_and_nodules_come_as_described_and_val_apart(folder: Path) -> None:
    data = load_dataset(folder)
    (lung,), (donor,) = data.backgrounds, data.donors
    assert (lung.name, lung.thickness_mm, lung.kind) == ("a", 4.0, "scan")
    assert [(m.nodule, m.diameter_mm) for m in lung.marks] == [(True, 8.0), (True, 10.0)]
    assert lung.grid is not None
    np.testing.assert_allclose(lung.grid.to_mm(lung.marks[0].center_kji), (90, 130, 90), atol=1e-6)
    assert (donor.texture, donor.malignancy) == (3, None)
    assert donor.diameter_mm == pytest.approx(10, abs=0.5)
    assert data.held_out is not None
    assert [b.name for b in data.held_out.backgrounds] == ["b"]
    assert [m.nodule for m in data.held_out.backgrounds[0].marks] == [False]


def test_what_nobody_rated_stays_unrated(folder: Path) -> None:
    nodule = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "patient": "p3"}
    file = describes(folder, nodule_volumes=[nodule], cubes=[cubes_in(folder, "p4")])
    assert [(donor.texture, donor.malignancy) for donor in nodule_donors(file)] == [(None, None)] * 2


def test_a_section_may_be_a_table_with_columns_of_its_own(folder: Path) -> None:
    (folder / "scans.csv").write_text("path,patient,remark\na.nii,p1,fine\n")
    (scan,) = read_dataset(describes(folder, scans="scans.csv")).scans
    assert (scan.scan, scan.patient, scan.split) == ("a", "p1", Split.TRAIN)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"scans": [{"path": "c.nii"}]}, r"dataset\.json, scans\[0\]: path is c\.nii, but there is no"),
        ({"scans": [{"file": "a.nii"}]}, r"scans\[0\] is .* accepted is an object with the keys path, scan"),
        ({"scans": [{"path": "a.nii", "split": "dev"}]}, r"scans\[0\]: split is 'dev'; accepted are train, val"),
        ({"scans": [{"path": "a.nii", "modality": "MR"}]}, "modality is 'MR'; accepted are CT"),
        ({"scans": [{"path": "a.nii", "thickness_mm": 50}]}, "thickness_mm is 50; accepted is 0.1 to 20"),
        ({"scans": [{"path": "a.nii"}, {"path": "a.nii"}]}, r"scans\[1\]: the scan 'a' is already listed"),
        ({"scans": [{"path": "a.nii"}, {"path": "./a.nii", "scan": "x", "split": "val"}]}, r"a\.nii is already listed"),
        ({"nodule_volumes": [NODULE, NODULE]}, r"volumes\[1\]: the nodule 'nodule_image' is already listed in .*\[0\]"),
        ({"scans": 3}, "scans is 3; accepted are a list"),
        ({"scans": [{"path": "b.nii", "scan": "x"}]}, r"annotations\.csv, line 2: no mark belongs to a listed scan"),
        ({"nodule_volumes": [{"image": "nodule_image.nii"}]}, r"nodule_volumes\[0\]: mask is empty"),
        ({"nodules": "annotations.csv"}, "accepted is a list of CSV tables"),
        ({"slides": []}, "unknown section 'slides'; accepted are format, about, scans"),
        ({"format": "2"}, 'no "format": "tomolens-dataset-1"'),
    ],
)
def test_what_is_wrong_is_refused_with_file_line_and_column(folder: Path, sections: Any, said: str) -> None:
    with pytest.raises(ReadError, match=said):
        read_dataset(describes(folder, **sections))


def test_data_are_the_same_in_another_folder_and_at_another_time(folder: Path, tmp_path_factory) -> None:
    before = load_dataset(folder).record
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("moved") / "away")
    (moved / "a.nii").touch()
    assert load_dataset(moved).record == before


def test_other_marks_other_voxels_and_other_nodules_are_other_data(folder: Path) -> None:
    before = load_dataset(folder).record
    (folder / "annotations.csv").write_text(LUNA16 + "a,90,130,90,8\n")
    write_volume(replace(chest(), voxels=chest().voxels + np.int16(1)), folder / "b.nii")
    file = describes(folder, nodule_volumes=[{"image": "nodule_image.nii", "mask": "nodule_mask.nii", "name": "new"}])
    assert differences(before, load_dataset(file).record) == {
        "changed": ["marks of a", "val scan b"],
        "gone": ["nodule nodule_image", "ratings of nodule_image"],
        "new": ["nodule new", "ratings of new"],
    }
    assert differences(before, [before[1], before[0], *before[2:]]) == {
        "in another order": [before[1][0], before[0][0]]
    }


@pytest.mark.parametrize(
    ("rating", "said"),
    [
        ({"texture": "hard"}, r"nodule_volumes\[0\]: texture is 'hard'; accepted is 1 to 5, ground glass, part-solid"),
        ({"texture": "Solid"}, "texture is 'Solid'; accepted is 1 to 5, ground glass, part-solid, solid, or nothing"),
        ({"texture": 6}, "texture is '6'; accepted is 1 to 5"),
        ({"malignancy": 0}, "malignancy is 0; accepted is 1 to 5"),
        ({"diagnosis": "bad"}, "diagnosis is 'bad'; accepted are benign, malignant"),
    ],
)
def test_a_rating_outside_its_scale_is_refused(folder: Path, rating: dict[str, Any], said: str) -> None:
    nodule = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", **rating}
    with pytest.raises(ReadError, match=said):
        read_dataset(describes(folder, nodule_volumes=[nodule]))


def test_a_patient_in_two_splits_is_refused_and_both_places_are_named(folder: Path) -> None:
    nodule = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "patient": "p2"}
    with pytest.raises(ReadError, match=r"volumes\[0\]: the patient 'p2' is .* train.*scans\[1\].*val"):
        read_dataset(describes(folder, nodule_volumes=[nodule]))


def test_a_scan_under_two_names_is_refused_and_two_series_of_a_folder_are_not(folder: Path) -> None:
    (folder / "link.nii").symlink_to(folder / "a.nii")
    (folder / "dicom").mkdir()
    two = [{"path": "dicom", "series_uid": "1.2"}, {"path": "dicom", "series_uid": "1.3"}]
    assert len(read_dataset(describes(folder, scans=[{"path": "a.nii"}, *two])).scans) == 3
    for again in ({"path": "link.nii"}, {"path": "dicom"}, {"path": "dicom", "series_uid": "1.2", "scan": "x"}):
        with pytest.raises(ReadError, match=r"scans\[3\]: .* is already listed in .*scans\[[01]\]"):
            read_dataset(describes(folder, scans=[{"path": "a.nii"}, *two, again]))


def test_rows_of_scans_that_are_not_listed_are_counted(folder: Path) -> None:
    (folder / "annotations_excluded.csv").write_text(LUNA16 + "b,90,130,90,-1\nc,90,130,90,-1\n")
    data = read_dataset(folder / "dataset.json")
    assert (len(data.scans), data.marks, data.unlisted) == (2, 2, 2)


@pytest.mark.parametrize("name", ["b.mhd", "B", "b.nii.gz"])
def test_a_row_whose_scan_is_listed_but_for_suffix_or_letter_case_is_refused(folder: Path, name: str) -> None:
    (folder / "annotations.csv").write_text(LUNA16 + f"a,90,130,90,8\n{name},90,130,90,8\n")
    with pytest.raises(ReadError, match=rf"line 3: the scan is called '{name}', but the listed one 'b'; write both"):
        read_dataset(folder / "dataset.json")


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"(?s)x\.nii.*y\.nii"):
        read_dataset(describes(folder, scans=[{"path": "x.nii"}, {"path": "y.nii"}]))


def test_a_table_whose_place_is_no_number_is_refused_with_its_line(folder: Path) -> None:
    (folder / "annotations.csv").write_text(LUNA16 + "a,90,130,left,8\n")
    with pytest.raises(ReadError, match=r"annotations\.csv, line 2: coordZ is 'left', not a finite number"):
        read_dataset(folder / "dataset.json")


def test_a_nodule_in_other_coordinates_than_lps_is_refused_where_it_leaves_its_scan(folder: Path) -> None:
    (folder / "annotations.csv").write_text(LUNA16 + "a,-90,-130,90,8\n")
    with pytest.raises(ReadError, match=r"annotations\.csv, line 2: the nodule at .* lies outside .*a\.nii.*RAS"):
        load_dataset(folder)


def test_an_excluded_place_may_lie_outside_a_part_of_a_scan(folder: Path) -> None:
    before = load_dataset(folder)
    with (folder / "annotations_excluded.csv").open("a") as table:
        table.write("b,90,130,-9000,5\n")
    there, now = (data.held_out.backgrounds[0].inner for data in (before, load_dataset(folder)))
    np.testing.assert_array_equal(now, there)


@pytest.mark.parametrize("diameter", [0, 5000])
def test_a_diameter_that_no_nodule_has_is_refused(folder: Path, diameter: float) -> None:
    (folder / "annotations.csv").write_text(LUNA16 + f"a,90,130,90,{diameter}\n")
    with pytest.raises(ReadError, match=rf"line 2: diameter_mm is {diameter}; accepted is above 0 to 200, or a neg"):
        read_dataset(folder / "dataset.json")


def test_a_place_that_is_marked_as_nodule_and_excluded_is_refused(folder: Path) -> None:
    (folder / "annotations_excluded.csv").write_text(LUNA16 + "a,90,130,90,-1\n")
    with pytest.raises(ReadError, match=r"ded\.csv, line 2: the place is marked as a nodule in .*ions\.csv, line 2"):
        read_dataset(folder / "dataset.json")


NODULES = ((-60, 30, 50), (-75, -25, 110), (75, 0, 90), (60, -40, 120), (80, 35, 130))
"""In the lungs of `chest`, its middle at x = y = 0; none is the mirror of another."""


def centred(hu: float) -> Volume:
    """A chest with nodules of that density, 10 mm."""
    drawn = chest()
    grid = Grid.from_axes(drawn.shape, drawn.spacing_mm, (-160.0, -130.0, 0.0))
    places = grid.to_mm(np.moveaxis(np.indices(drawn.shape), 0, -1))
    inside = np.any([np.linalg.norm(places - place, axis=-1) < 5 for place in NODULES], axis=0)
    return Volume(np.where(inside, hu, drawn.voxels).astype(np.int16), grid, Unit.HU, "CT")


def marked(folder: Path, *places: Sequence[float]) -> None:
    (folder / "annotations.csv").write_text(LUNA16 + "".join(f"a,{x},{y},{z},10\n" for x, y, z in places))


def mirrored(*places: Sequence[float]) -> list[tuple[float, ...]]:
    return [(-x, -y, z) for x, y, z in places]


@pytest.mark.parametrize("hu", [40, -600])
def test_a_table_in_ras_is_refused_where_its_nodules_lie_there_alone(folder: Path, hu: float) -> None:
    write_volume(centred(hu), folder / "a.nii")
    marked(folder, *NODULES)
    assert [(place.here, place.mirrored) for place in load_dataset(folder).seen] == [(True, False)] * 5
    marked(folder, *mirrored(*NODULES))
    said = r"annotations\.csv: 5 of 5 marked nodules are denser .* only with x and y negated, 0 where .* LPS mm.* RAS"
    with pytest.raises(ReadError, match=said):
        load_dataset(folder)


def sides(*fits: tuple[bool, bool | None]) -> list[Seen]:
    return [Seen(Path("a.csv"), here, there) for here, there in fits]


@pytest.mark.parametrize(
    "places",
    [
        pytest.param(sides((False, True), (False, True)), id="two prove nothing"),
        pytest.param(sides(*[(False, None)] * 9), id="in RAS they would lie outside"),
        pytest.param(sides(*[(False, False)] * 9), id="ground glass and in the wall"),
        pytest.param(sides(*[(False, True)] * 3, *[(False, False)] * 4), id="fewer than half"),
        pytest.param(sides(*[(False, True)] * 5, *[(True, False)] * 2), id="some fit as they are"),
        pytest.param([*sides((False, True), (False, True)), Seen(Path("b"), False, True)], id="of two tables"),
    ],
)
def test_nodules_that_are_hard_to_see_are_not_refused(places: list[Seen]) -> None:
    check_sides(places)


def test_one_table_in_ras_among_others_is_refused() -> None:
    right = [Seen(Path("b.csv"), True, False)] * 30
    with pytest.raises(ReadError, match=r"a\.csv: 4 of 6 marked nodules .* negated, 1 where"):
        check_sides([*right, *sides(*[(False, True)] * 4, (True, False), (False, False), (False, None))])


def test_an_empty_mask_is_refused(folder: Path) -> None:
    empty = Volume(np.zeros((21, 21, 21), np.int16), Grid.from_axes((21, 21, 21)), Unit.HU, "CT")
    write_volume(empty, folder / "nodule_mask.nii")
    with pytest.raises(ReadError, match=r"nodule_volumes\[0\]: the mask .* is empty"):
        load_dataset(folder)


def test_a_folder_in_the_layout_of_luna16_describes_itself(tmp_path: Path) -> None:
    for name in ("subset0/1.2.3.mhd", "subset9/1.2.4.mhd"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "annotations.csv").write_text(LUNA16 + "1.2.3,90,130,90,8\n")
    written = tmp_path / "dataset.json"
    written.write_text(json.dumps(describe(tmp_path, ["subset9"])))
    scans = read_dataset(written).scans
    assert [(s.scan, s.split, len(s.nodules)) for s in scans] == [("1.2.3", "train", 1), ("1.2.4", "val", 0)]
    with pytest.raises(OptionError, match="called 'subset5'"):
        describe(tmp_path, ["subset5"])


@pytest.fixture
def lidc(tmp_path: Path) -> Path:
    """Scans called by their series, as LUNA16's are, with cubes and nodule volumes of LIDC's patients beside them."""
    for place in ("subset0", "subset9", "lidc_cubes51", "lidc_voi/image", "lidc_voi/mask"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("subset0/1.2.3.mhd", "subset9/1.2.4.mhd"):
        (tmp_path / name).touch()
    table = "k,patient_id,seriesuid,Texture_value\n"
    for name, patient, series in (("n1", "P1", "1.2.3"), ("n2", "P2", "1.2.4")):
        table += f"{name},{patient},{series},5\n"
        for part in ("image", "mask"):
            (tmp_path / "lidc_voi" / part / f"{name}.nii.gz").touch()
    (tmp_path / "lidc_voi" / "metadata.csv").write_text(table)
    cubes_in(tmp_path / "lidc_cubes51", "P1", "P2", "P3")
    return tmp_path


@pytest.mark.parametrize("named", ["subset9", "1.2.4", "P2"])
def test_whoever_is_kept_out_is_kept_out_with_scan_nodules_and_cubes(lidc: Path, named: str) -> None:
    (lidc / "dataset.json").write_text(json.dumps(describe(lidc, [named])))
    data = read_dataset(lidc / "dataset.json")
    train, val = data.of(Split.TRAIN), data.of(Split.VAL)
    for part, patient in ((train, "P1"), (val, "P2")):
        assert [item.patient for item in (*part.scans, *part.nodules)] == [patient, patient]
    assert [cubes.patients() for cubes in train.cubes] == [["P1", "P3"]]
    assert [cubes.patients() for cubes in val.cubes] == [["P2"]]


def test_only_the_cubes_of_the_patients_that_are_named_are_read(folder: Path) -> None:
    cubes = cubes_in(folder, "p4", "p5", "p6")
    file = describes(folder, nodule_volumes=[], cubes=[{**cubes, "patients": "p4;p6"}])
    assert [donor.name for donor in nodule_donors(file)] == ["cube of p4", "cube of p6"]
    with pytest.raises(ReadError, match=r"cubes\[0\]: patients names 'p7', but .* holds no cube of that patient"):
        read_dataset(describes(folder, cubes=[{**cubes, "patients": "p4;p7"}]))


def test_cubes_of_a_patient_in_two_splits_are_refused(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"cubes\[0\]: the patient 'p2' is in the split train, but in .* the split val"):
        read_dataset(describes(folder, cubes=[cubes_in(folder, "p2")]))


def test_scans_with_marked_nodules_alone_train_the_detector(folder: Path) -> None:
    dataset = read_dataset(describes(folder, nodule_volumes=[]))
    data = load(dataset, inserting=False)
    assert (len(data.backgrounds), data.donors) == (1, ())
    assert [mark.nodule for mark in data.backgrounds[0].marks] == [True, True]
    with pytest.raises(
        ReadError, match=r"1 scans with 2 marked nodules .*, and 0 nodules with masks .*\(nodule_volumes, cubes"
    ):
        load(dataset)


@pytest.mark.parametrize(
    ("sections", "seeds"),
    [
        pytest.param({"nodule_volumes": [], "nodules": [], "excluded": []}, (1,), id="no nodule"),
        pytest.param({"scans": [], "nodules": [], "excluded": []}, (), id="no lung"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_scans_are_read(
    folder: Path, sections: dict[str, Any], seeds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("read_volume", "phantom_lung"):
        monkeypatch.setattr(f"tomolens.training.sources.{name}", lambda *_, **__: pytest.fail("It is read."))
    with pytest.raises(ReadError, match="Training needs some lung and some nodule"):
        load(read_dataset(describes(folder, **sections)), seeds, inserting=False)


def test_a_folder_with_nothing_to_train_on_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="holds 0 lungs and 0 nodules"):
        open_dataset(tmp_path)


def test_the_shared_training_data_describe_themselves(shared_data: Path) -> None:
    data = open_dataset(shared_data / "train")
    assert (len(data.scans), len(data.nodules), len(data.cubes)) == (5, 722, 1)
    assert {s.scan: len(s.nodules) for s in data.scans}["LIDC-IDRI-0063"] == 2
    assert {s.patient for s in data.scans} >= {"LIDC-IDRI-0002"}
    assert {n.diagnosis for n in data.nodules} == {"benign", "malignant"}
    assert len(data.cubes[0].texture) == len(data.cubes[0].patients()) == 107


def test_scores_are_fitted_on_what_was_kept_out_of_training(folder: Path) -> None:
    shown, doubt = kept_out(open_dataset(folder), [600])
    assert [lung.name for lung in shown.backgrounds] == ["b", "phantom-600"]
    assert "the split val holds no nodule with a mask" in doubt
    aside = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "patient": "p2", "split": "val"}
    shown, doubt = kept_out(open_dataset(describes(folder, nodule_volumes=[aside])), [600])
    assert [lung.name for lung in shown.backgrounds] == ["b", "phantom-600"]
    assert doubt == ""
    alone = describes(folder, scans=[{"path": "a.nii", "patient": "p1"}])
    shown, doubt = kept_out(open_dataset(alone), [])
    assert [lung.name for lung in shown.backgrounds] == ["a"]
    assert "there is no split val, so nodules of train are taken" in doubt


def test_a_model_knows_what_it_learned_from_and_says_so_where_it_is_to_be_fitted_on_it(folder: Path) -> None:
    write_volume(replace(chest(), voxels=chest().voxels + np.int16(1)), folder / "b.nii")
    model = Bundle(folder / "model", replace(find_bundle().card, name="mine"))
    assert "mine does not say what it learned from" in learned(model, load_dataset(folder))
    (model.folder / "docs").mkdir(parents=True)
    write_contents(contents(load_dataset(folder, [600]).record), model.folder / CONTENTS)
    header, *rows = (model.folder / CONTENTS).read_text(encoding="utf-8").splitlines()
    assert header == "split,kind,fingerprint"
    assert [row.rpartition(",")[0] for row in rows] == ["train,scan", "train,nodule", "val,scan"]
    kept, _ = kept_out(open_dataset(folder), [600])
    assert learned(model, replace(kept, donors=())) == ""
    assert learned(model, kept) == "mine learned from 1 of 1 nodules that scores are fitted on: they will be too sure."
    small = replace(kept, donors=tuple(replace(donor, diameter_mm=LEAST_MM - 0.1) for donor in kept.donors))
    assert learned(model, small) == ""
    renamed = {"image": "nodule_image.nii", "mask": "nodule_mask.nii", "name": "other", "texture": 5}
    shown = load_dataset(describes(folder, nodule_volumes=[renamed]))
    assert "learned from 1 of 1 scans and 1 of 1 nodules" in learned(model, shown)


def test_without_a_nodule_that_can_be_put_elsewhere_nothing_is_fitted(folder: Path) -> None:
    with pytest.raises(ReadError, match="holds no nodule with a mask"):
        kept_out(open_dataset(describes(folder, nodule_volumes=[])), [])


def test_a_cube_is_the_same_in_numbers_of_another_type() -> None:
    image, mask = np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(3, dtype=np.uint8)[None].repeat(3, 0)
    assert fingerprint_of_cube(image.astype(float), mask > 0) == fingerprint_of_cube(image, mask)
    assert fingerprint_of_cube(image + 1, mask) != fingerprint_of_cube(image, mask)
    assert fingerprint_of_cube(image, 1 - mask) != fingerprint_of_cube(image, mask)


def test_two_cubes_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"cubes\[0\]: the nodule 'cube of p4' is already listed in .*cubes\[0\]"):
        read_dataset(describes(folder, cubes=[cubes_in(folder, "p4", "p4")]))


def test_the_same_scan_turned_over_is_the_same_data() -> None:
    volume = chest()
    assert fingerprint_of_volume(volume.flipped(0).flipped(2)) == fingerprint_of_volume(volume)
    mirrored = replace(volume, voxels=volume.voxels[:, :, ::-1])
    assert fingerprint_of_volume(mirrored) != fingerprint_of_volume(volume)
