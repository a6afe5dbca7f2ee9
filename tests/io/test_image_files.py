from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings

from tests.core.grids import grids
from tomolens.core.errors import GeometryError, OptionError, OutputError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.kspace import NO_PLACE
from tomolens.core.progress import Step
from tomolens.core.reconstruction import GENERATIVE
from tomolens.core.volume import Unit, Volume
from tomolens.io import nifti
from tomolens.io.read import read_volume
from tomolens.io.write import WRITE_SUFFIXES, write_volume

SHAPE = (4, 5, 6)
RAS = np.array([[2.0, 0, 0, -30], [0, 3, 0, -40], [0, 0, 5, 60], [0, 0, 0, 1]])


def numbered(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) - 1000).astype(np.int16)


def oblique(shear_mm: float = 0.0) -> Grid:
    """A left-handed, oblique grid; sheared along its slices by ``shear_mm`` a slice."""
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.36, -0.48, 0.8])
    axes = (-np.cross(row, column), column, row)
    grid = Grid.from_axes(SHAPE, (2.5, 0.8, 0.7), (-201.3, -59.7, -405.800049), axes)
    affine = grid.affine.copy()
    affine[:3, 0] += shear_mm * row
    return Grid(SHAPE, affine, "1.2.3")


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_a_written_volume_is_read_back_with_all_it_says(tmp_path: Path, suffix: str) -> None:
    volume = Volume(numbered(), oblique(), padding=-1024.0, history=("cut out", "turned"))
    path = write_volume(volume, tmp_path / f"a{suffix}")
    again = read_volume(path)
    assert np.array_equal(again.voxels, volume.voxels)
    assert np.abs(again.grid.affine - volume.grid.affine).max() <= 1e-6
    assert again.grid.same_place(volume.grid)
    assert (again.voxels.dtype, again.unit, again.modality) == (np.int16, Unit.HU, "CT")
    assert (again.padding, again.history) == (-1024.0, ("cut out", "turned"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(grid=grids())
def test_any_grid_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, grid: Grid
) -> None:
    if grid.is_sheared and suffix == ".mha":
        return
    path = tmp_path_factory.mktemp("volume") / f"a{suffix}"
    volume = Volume(numbered(grid.shape), grid)
    again = read_volume(write_volume(volume, path))
    assert np.array_equal(again.voxels, volume.voxels)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    assert np.abs(again.grid.to_mm(corners) - grid.to_mm(corners)).max() <= 1e-6


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_fractions_survive_as_float32(tmp_path: Path, suffix: str) -> None:
    volume = Volume(numbered().astype(np.float32) / 7, oblique(), Unit.ARBITRARY, "MR")
    again = read_volume(write_volume(volume, tmp_path / f"a{suffix}"))
    assert np.array_equal(again.voxels, volume.voxels)
    assert (again.voxels.dtype, again.unit, again.modality) == (np.float32, Unit.ARBITRARY, "MR")


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_flipped_and_permuted_views_are_written_as_they_are_seen(tmp_path: Path, suffix: str) -> None:
    volume = Volume(numbered(), oblique()).permuted((2, 0, 1)).flipped(1)
    again = read_volume(write_volume(volume, tmp_path / f"a{suffix}"))
    assert np.array_equal(again.voxels, volume.voxels)
    assert again.grid.same_place(volume.grid, 1e-6)


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
def test_other_software_sees_every_voxel_in_the_same_place(tmp_path: Path, suffix: str) -> None:
    volume = Volume(numbered(), oblique())
    image = sitk.ReadImage(str(write_volume(volume, tmp_path / f"a{suffix}")))
    for k, j, i in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (1, 2, 3)]:
        assert image[i, j, k] == volume.voxels[k, j, i]
        assert image.TransformIndexToPhysicalPoint((i, j, k)) == pytest.approx(volume.grid.to_mm((k, j, i)), abs=1e-3)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd"])
def test_a_sheared_grid_is_written_where_the_format_holds_it(tmp_path: Path, suffix: str) -> None:
    volume = Volume(numbered(), oblique(shear_mm=0.5))
    again = read_volume(write_volume(volume, tmp_path / f"a{suffix}"))
    assert again.grid.is_sheared
    assert np.abs(again.grid.affine - volume.grid.affine).max() <= 1e-6


def test_a_sheared_grid_stands_in_the_sform_alone(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique(shear_mm=0.5)), tmp_path / "a.nii")
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


@pytest.mark.parametrize("name", ["a.mha", "a.MHA"])
def test_a_sheared_grid_is_refused_where_the_format_cannot_hold_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=rf"^{name}: MetaImage cannot hold a sheared grid"):
        write_volume(Volume(numbered(), oblique(shear_mm=0.5)), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.Nii", "a.Nii.GZ", "a.NRRD", "a.MHA"])
def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path, name: str) -> None:
    path = write_volume(Volume(numbered(), oblique()), tmp_path / name)
    assert list(tmp_path.iterdir()) == [path]
    again = read_volume(path)
    assert np.array_equal(again.voxels, numbered())
    assert again.grid.same_place(oblique())


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "float64"])
def test_other_kinds_of_number_that_every_format_holds_are_written(tmp_path: Path, suffix: str, dtype: str) -> None:
    voxels = (numbered() + 1000).astype(dtype)
    voxels[0, 0, 0] += voxels.dtype.type(0.1 if dtype == "float64" else 0)
    again = read_volume(write_volume(Volume(voxels, oblique()), tmp_path / f"a{suffix}"))
    assert np.array_equal(again.voxels, voxels.astype(np.float32))
    assert (again.modality, again.history) == ("CT", ())


@pytest.mark.parametrize("suffix", WRITE_SUFFIXES)
@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", ">i2", "complex64"])
def test_a_kind_of_number_that_a_format_cannot_hold_is_refused_by_name(tmp_path: Path, suffix: str, dtype: str) -> None:
    with pytest.raises(OutputError, match=rf"a{suffix}: voxels are written as int16, float32.*not as {dtype}\."):
        write_volume(Volume(numbered().astype(dtype), oblique()), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.txt", "a", "a.dcm", "a.mhd"])
def test_other_suffixes_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"written as \.nii, \.nii\.gz, \.nrrd, \.mha, not as"):
        write_volume(Volume(numbered(), oblique()), tmp_path / name)


def test_a_place_that_cannot_be_written_to_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"a\.nii cannot be written"):
        write_volume(Volume(numbered(), oblique()), tmp_path / "file" / "a.nii")


def test_a_failed_write_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_volume(Volume(numbered(), oblique()), tmp_path / "a.nii")
    before = path.read_bytes()

    def fail(image: object, to: Path) -> None:
        to.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nifti.nib, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        write_volume(Volume(numbered() + 1, oblique()), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def saved(path: Path, array: np.ndarray, change: Callable[[nib.Nifti1Image], None] = lambda image: None) -> Path:
    """A NIfTI file as other software writes it: (i, j, k), RAS."""
    image = nib.Nifti1Image(array, RAS)
    change(image)
    nib.save(image, path)
    return path


def test_a_foreign_nifti_is_turned_from_ras_to_lps(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_volume(saved(tmp_path / "a.nii.gz", array))
    assert volume.voxels[3, 2, 1] == array[1, 2, 3]
    assert volume.grid.to_mm((0, 0, 0)) == pytest.approx((30, 40, 60))
    assert volume.grid.to_mm((3, 2, 1)) == pytest.approx((28, 34, 75))
    assert volume.grid.axis_letters == ("S", "A", "R")


def test_a_suffix_in_mixed_case_does_not_open_its_namesake(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique()), tmp_path / "a.Nii")
    write_volume(Volume(numbered() + 1, oblique()), tmp_path / "a.nii")
    assert len(list(tmp_path.iterdir())) == 1 or np.array_equal(read_volume(path).voxels, numbered())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_2_is_read_like_nifti_1(tmp_path: Path, name: str) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, RAS), tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.voxels.T, array)
    assert volume.grid.to_mm((3, 2, 1)) == pytest.approx((28, 34, 75))


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001)])
def test_a_nifti_in_metres_or_micrometres_is_turned_into_mm(tmp_path: Path, unit: str, factor: float) -> None:
    path = saved(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), lambda image: image.header.set_xyzt_units(unit))
    assert read_volume(path).spacing_mm == pytest.approx((5 * factor, 3 * factor, 2 * factor))


@pytest.mark.parametrize(("slope", "dtype"), [(2.0, np.int16), (0.5, np.float32)])
def test_the_scaling_of_a_nifti_is_applied(tmp_path: Path, slope: float, dtype: type) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = saved(tmp_path / "a.nii", array)
    header = bytearray(path.read_bytes())
    header[112:120] = struct.pack("<2f", slope, -1024)  # scl_slope, scl_inter
    path.write_bytes(header)
    volume = read_volume(path)
    assert volume.voxels.dtype == dtype
    assert np.array_equal(volume.voxels.T, array * slope - 1024)


def test_the_qform_is_used_where_there_is_no_sform(tmp_path: Path) -> None:
    def only_qform(image: nib.Nifti1Image) -> None:
        image.set_qform(RAS, 1)
        image.set_sform(None, 0)

    volume = read_volume(saved(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), only_qform))
    assert volume.grid.to_mm((3, 2, 1)) == pytest.approx((28, 34, 75))


def test_a_nifti_whose_two_places_differ_is_read_by_its_sform_and_that_is_said(tmp_path: Path) -> None:
    def moved(image: nib.Nifti1Image) -> None:
        image.set_sform(RAS, 4)
        image.set_qform(np.diag([2.0, 3, 5, 1]), 1)

    volume = read_volume(saved(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), moved))
    assert volume.grid.to_mm((0, 0, 0)) == pytest.approx((30, 40, 60))
    assert "sform and qform place it up to 78.1 mm apart; the sform was used" in volume.history[0]


def test_a_nifti_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    def nowhere(image: nib.Nifti1Image) -> None:
        image.set_sform(None, 0)
        image.set_qform(None, 0)

    path = saved(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), nowhere)
    with pytest.raises(GeometryError, match=r"a\.nii: sform and qform codes are 0"):
        read_volume(path)


def unplaced() -> Volume:
    """Numbers whose place in the patient nobody knows, as of k-space without directions."""
    grid = Grid.from_axes(numbered().shape, (4.0, 1.25, 0.9))
    return Volume(numbered().astype(np.float32), grid, Unit.ARBITRARY, "MR", history=(f"by hand: {NO_PLACE}", "made"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_has_no_known_place_says_so_to_every_reader_of_nifti_and_comes_back_as_it_was(tmp_path, suffix) -> None:
    path = write_volume(unplaced(), tmp_path / f"head{suffix}")
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    assert header.get_zooms() == pytest.approx((0.9, 1.25, 4.0))
    again = read_volume(path)
    assert (again.placed, again.history) == (False, unplaced().history)
    assert again.grid.same_place(unplaced().grid)
    np.testing.assert_array_equal(again.voxels, unplaced().voxels)


def test_numbers_of_other_software_in_a_file_without_a_place_have_none_either(tmp_path) -> None:
    ours = nib.load(write_volume(unplaced(), tmp_path / "ours.nii"))
    nib.save(nib.Nifti1Image(ours.get_fdata(dtype=np.float32) + 5, None, ours.header), tmp_path / "theirs.nii")
    theirs = read_volume(tmp_path / "theirs.nii")
    assert (theirs.placed, theirs.history[0]) == (False, f"{NO_PLACE}: its sform and qform codes are 0")
    ours.header.set_zooms((1, 1, 1))
    nib.save(nib.Nifti1Image(ours.get_fdata(dtype=np.float32), None, ours.header), tmp_path / "resized.nii")
    with pytest.raises(GeometryError, match="codes are 0"):
        read_volume(tmp_path / "resized.nii")


def test_an_nrrd_that_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\nspacings: 1 1 2\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(48))
    with pytest.raises(GeometryError, match="its space is absent"):
        read_volume(tmp_path / "a.nrrd")


NRRD = {
    "type": "short",
    "dimension": "3",
    "sizes": "2 3 4",
    "encoding": "raw",
    "endian": "little",
    "space": "left-posterior-superior",
    "space directions": "(2,0,0) (0,3,0) (0,0,5)",
    "space origin": "(-30,-40,60)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "DimSize": "2 3 4",
    "Offset": "-30 -40 60",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "ElementSpacing": "2 3 5",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def nrrd(path: Path, fields: dict[str, str]) -> Path:
    lines = ["NRRD0004", "# a comment", *(f"{name}: {value}" for name, value in fields.items()), "key:=value", "", ""]
    path.write_bytes("\n".join(lines).encode() + bytes(48))
    return path


def meta(path: Path, fields: dict[str, str]) -> Path:
    path.write_bytes("".join(f"{name} = {value}\n" for name, value in fields.items()).encode() + bytes(48))
    return path


def without(fields: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in fields.items() if key != name}


@pytest.mark.parametrize("changes", [{}, {"space units": '"mm" "mm" "mm"'}])
def test_an_nrrd_in_mm_that_says_where_it_lies_is_read(tmp_path: Path, changes: dict[str, str]) -> None:
    grid = read_volume(nrrd(tmp_path / "a.nrrd", NRRD | changes)).grid
    assert (*grid.spacing_mm, *grid.to_mm((0, 0, 0))) == (5, 3, 2, -30, -40, 60)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space units": '"cm" "cm" "cm"'}, "its space units is 'cm', not mm"),
        ({"Space Units": '"mm" "mm" "m"'}, "its space units is 'm', not mm"),
        ({"space directions": "(2,0,0) (0,3,0) none"}, "space directions are .* none, not one vector"),
    ],
)
def test_an_nrrd_in_another_unit_or_without_an_axis_is_refused(
    tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(GeometryError, match=said):
        read_volume(nrrd(tmp_path / "a.nrrd", NRRD | changes))


def test_an_nrrd_without_an_origin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"a\.nrrd: its header has no space origin"):
        read_volume(nrrd(tmp_path / "a.nrrd", without(NRRD, "space origin")))


def test_an_nrrd_without_directions_is_refused(tmp_path: Path) -> None:
    fields = without(NRRD, "space directions") | {"spacings": "2 3 5"}
    with pytest.raises((GeometryError, ReadError), match=r"no space directions|not a readable"):
        read_volume(nrrd(tmp_path / "a.nrrd", fields))


@pytest.mark.parametrize(
    ("name", "synonym"),
    [
        ("Offset", "Position"),
        ("Offset", "Origin"),
        ("TransformMatrix", "Orientation"),
        ("ElementSpacing", "ElementSize"),
    ],
)
def test_a_metaimage_that_does_not_say_where_it_lies_is_refused_and_the_key_is_named(
    tmp_path: Path, name: str, synonym: str
) -> None:
    fields = without(META, name)
    with pytest.raises(GeometryError, match=rf"a\.mha: its header has no {name}"):
        read_volume(meta(tmp_path / "a.mha", fields))
    said = {"ObjectType": "Image", "NDims": "3", synonym: META[name]}
    grid = read_volume(meta(tmp_path / "a.mha", said | fields)).grid
    assert (*grid.spacing_mm, *grid.to_mm((0, 0, 0))) == (5, 3, 2, -30, -40, 60)


def test_a_metaimage_in_another_unit_is_refused(tmp_path: Path) -> None:
    fields = without(META, "ElementDataFile") | {"DistanceUnits": "cm", "ElementDataFile": "LOCAL"}
    with pytest.raises(GeometryError, match="its DistanceUnits is 'cm', not mm"):
        read_volume(meta(tmp_path / "a.mha", fields))


def test_a_foreign_nrrd_in_ras_is_turned_to_lps(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\nspace: RAS\n"
        "space directions: (2,0,0) (0,3,0) (0,0,5)\nspace origin: (-30,-40,60)\n\n"
    )
    array = np.arange(24, dtype="<i2")
    (tmp_path / "a.nrrd").write_bytes(header.encode() + array.tobytes())
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.grid.to_mm((3, 2, 1)) == pytest.approx((28, 34, 75))
    assert np.array_equal(volume.voxels.ravel(), array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (4, 5)])
def test_an_image_that_is_not_three_dimensional_is_refused(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".nii.gz":
        saved(path, np.zeros(shape, np.int16))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.int16), isVector=False), str(path))
    with pytest.raises(ReadError, match=rf"{len(shape)} dimensions .*not one 3D image of numbers"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_an_image_of_vectors_is_refused(tmp_path: Path, suffix: str) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.float32), isVector=True)
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    with pytest.raises(ReadError, match="2 values a voxel, not one 3D image of numbers"):
        read_volume(tmp_path / f"a{suffix}")


def test_colours_are_refused(tmp_path: Path) -> None:
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ReadError, match="not one 3D image of numbers"):
        read_volume(saved(tmp_path / "a.nii", colours))


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path: Path) -> None:
    assert read_volume(saved(tmp_path / "a.nii", np.zeros((3, 4, 5, 1), np.int16))).shape == (5, 4, 3)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 1, 1] = np.nan
    with pytest.raises(ReadError, match="1 voxels are not finite numbers"):
        read_volume(saved(tmp_path / "a.nii", array))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"no image" * 100)
    with pytest.raises(ReadError, match=r"broken.*not a readable"):
        read_volume(path)
    path = write_volume(Volume(numbered((20, 50, 50)), Grid.from_axes((20, 50, 50))), path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ReadError, match=r"broken.*not a readable"):
        read_volume(path)


def like_a_chest(**changes: float) -> np.ndarray:
    """Half air and lung, half soft tissue, and a corner of padding."""
    array = np.random.default_rng(0).normal(-850, 60, (20, 20, 20)).round().clip(-1024)
    array[10:] = np.random.default_rng(1).normal(40, 30, (10, 20, 20)).round()
    array[0, :5, :5] = changes.get("padding", -2048)
    return array + changes.get("shift", 0)


def drawn(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    return {
        "phase": random.integers(-4096, 4096, (20, 20, 20)),
        "phase in milliradians": random.integers(-3142, 3143, (20, 20, 20)),
        "phase of a head in an empty field": random.integers(-4096, 4096, (20, 20, 20))
        * (np.indices((20,) * 3)[0] < 4),
        "field map": random.normal(0, 350, (20, 20, 20)).round(),
        "air alone": random.normal(-1000, 20, (20, 20, 20)).round(),
        "magnitude": random.integers(0, 4096, (20, 20, 20)),
    }[kind]


@pytest.mark.parametrize(
    ("array", "dtype", "modality"),
    [
        (like_a_chest(), np.int16, "CT"),
        (like_a_chest(), np.float32, "CT"),
        (like_a_chest(padding=-1024), np.int16, "CT"),
        (like_a_chest(shift=1024, padding=-1024), np.int16, "MR"),
        (like_a_chest(shift=0.5), np.float32, "MR"),
    ],
)
def test_what_an_image_shows_is_guessed_from_its_numbers_and_the_guess_is_recorded(
    tmp_path: Path, array: np.ndarray, dtype: type, modality: str
) -> None:
    volume = read_volume(saved(tmp_path / "a.nii", array.astype(dtype)))
    assert volume.modality == modality
    assert volume.history[0].startswith(f"taken for {modality}: a.nii does not say, and its voxels")


@pytest.mark.parametrize(
    "kind",
    [
        "phase",
        "phase in milliradians",
        "phase of a head in an empty field",
        "field map",
        "air alone",
        "magnitude",
    ],
)
def test_whole_numbers_below_air_alone_make_no_ct(tmp_path: Path, kind: str) -> None:
    volume = read_volume(saved(tmp_path / "a.nii", drawn(kind).astype(np.int16)))
    assert (volume.modality, volume.unit) == ("MR", Unit.ARBITRARY)
    assert volume.history[0].startswith("taken for MR: a.nii does not say, and its voxels")


def test_what_an_image_shows_can_be_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16))
    volume = read_volume(path, modality="CT")
    assert (volume.modality, volume.unit, volume.history) == ("CT", Unit.HU, ())
    with pytest.raises(OptionError, match="modality is one of CT, MR, not 'PT'"):
        read_volume(path, modality="PT")


def test_the_shear_of_an_image_file_is_resampled_on_request(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique(shear_mm=0.7)), tmp_path / "a.nii")
    upright = read_volume(path, tilt="resample")
    assert not upright.grid.is_sheared
    assert upright.shape == (4, 5, 9)
    with pytest.raises(OptionError, match="tilt is one of keep, resample, not 'drop'"):
        read_volume(path, tilt="drop")  # type: ignore[arg-type]


def test_progress_is_told(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique()), tmp_path / "a.nii")
    steps: list[Step] = []
    read_volume(path, progress=steps.append)
    assert steps == [Step("read image", 0, 1), Step("read image", 1, 1)]


def test_a_mask_saved_under_the_header_of_a_ct_is_no_ct(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique(), padding=-1024.0), tmp_path / "ct.nii.gz")
    ct = nib.load(path)
    tissue = (np.asarray(ct.dataobj) > -950).astype(np.uint8)
    nib.save(nib.Nifti1Image(tissue, ct.affine, ct.header), tmp_path / "m.nii")
    mask = read_volume(tmp_path / "m.nii")
    assert (mask.modality, mask.padding) == ("MR", None)


def test_a_header_that_was_moved_since_overrules_the_exact_grid(tmp_path: Path) -> None:
    path = write_volume(Volume(numbered(), oblique()), tmp_path / "a.nii")
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 5
    image.set_sform(moved)
    image.set_qform(moved)
    nib.save(image, tmp_path / "b.nii")
    shift = read_volume(tmp_path / "b.nii").grid.to_mm((0, 0, 0)) - oblique().to_mm((0, 0, 0))
    assert shift == pytest.approx((-5, 0, 0), abs=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_header_whose_spacing_was_rounded_since_overrules_the_exact_grid(tmp_path: Path, axis: int) -> None:
    spacing = np.array([2.0, 0.7031, 0.7031])
    path = write_volume(
        Volume(numbered(), Grid.from_axes(SHAPE, tuple(spacing), (-180, -170, -1200))), tmp_path / "a.nii"
    )
    image = nib.load(path)
    rounded = image.affine.copy()
    rounded[:3, 2 - axis] *= 0.7 / 0.7031
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), rounded, image.header), tmp_path / "b.nii")
    spacing[axis] *= 0.7 / 0.7031
    assert read_volume(tmp_path / "b.nii").spacing_mm == pytest.approx(spacing, abs=1e-6)


def test_the_real_mr_volumes_are_read_where_simpleitk_reads_them(shared_data: Path) -> None:
    path = next((shared_data / "open" / "mri").rglob("*.nii.gz"))
    volume, image = read_volume(path), sitk.ReadImage(str(path))
    assert np.array_equal(volume.voxels, sitk.GetArrayViewFromImage(image))
    last = tuple(n - 1 for n in volume.shape)
    assert volume.grid.to_mm(last) == pytest.approx(image.TransformIndexToPhysicalPoint(last[::-1]), abs=1e-2)
    assert volume.modality == "MR"


def test_a_real_ct_is_known_by_its_air(shared_data: Path) -> None:
    path = next((shared_data / "open" / "lidc_voi" / "image").glob("*.nii.gz"))
    volume = read_volume(path)
    assert (volume.modality, volume.unit) == ("CT", Unit.HU)
    assert replace(volume, history=()).history == ()


@pytest.mark.parametrize("rewrite", ["nibabel", "SimpleITK"])
def test_a_gans_image_stays_one_where_another_program_writes_it_anew(tmp_path: Path, rewrite: str) -> None:
    history = ("read", f"ct-denoising by gan 1 ({GENERATIVE})")
    path = write_volume(Volume(numbered(), oblique(), history=history), tmp_path / "a.nii.gz")
    if rewrite == "nibabel":
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.maximum(np.asarray(image.dataobj), -990), None, image.header), path)
    else:
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path))
    told = [step for step in read_volume(path).history if GENERATIVE in step]
    assert len(told) == 1
    plain = write_volume(Volume(numbered(), oblique(), history=("read",)), tmp_path / "plain.nii.gz")
    assert not nib.load(plain).header["descrip"].item()
