"""Each format is written here by hand, or by the package that defines it, and read back."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from tomolens.core.errors import GeometryError, OutputError, ReadError
from tomolens.core.grid import Grid
from tomolens.core.kspace import NO_PLACE, KSpace
from tomolens.io.kspace import KSPACE_SUFFIXES, is_kspace, read_kspace, write_kspace
from tomolens.physics.fourier import to_images, to_kspace

SHAPE = (3, 2, 12, 10)
"""Slices, coils, rows, columns; nothing is square."""
SAMPLES = Path(__file__).parents[2] / "sample_volumes"


def images(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(np.complex64)


def mask() -> np.ndarray:
    lines = np.ones((SHAPE[0], *SHAPE[2:]), bool)
    lines[:, [1, 3, 10]] = False
    return lines


def measurement() -> KSpace:
    turn = np.array([[0, 0.6, 0.8], [0, -0.8, 0.6], [1, 0, 0]])
    grid = Grid.from_axes((SHAPE[0], *SHAPE[2:]), (5.0, 1.2, 0.9), (-30.0, 12.5, 7.0), turn, "1.2.3")
    data = np.where(mask()[:, None], to_kspace(images()), 0).astype(np.complex64)
    return KSpace(data, mask(), grid, images(2), "a head", ("simulated: for a test",))


def same(one: KSpace, other: KSpace, atol: float = 0.0) -> None:
    np.testing.assert_allclose(one.data, other.data, atol=atol)
    np.testing.assert_array_equal(one.acquired, other.acquired)
    assert one.grid.same_place(other.grid)


def test_an_archive_gives_back_exactly_what_was_written(tmp_path):
    file = write_kspace(measurement(), tmp_path / "head.npz")
    read = read_kspace(file)
    same(read, measurement())
    np.testing.assert_array_equal(read.sensitivities, images(2))
    assert (read.name, read.history) == ("a head", ("simulated: for a test",))
    assert read.grid.frame_of_reference == "1.2.3"
    assert is_kspace(file)


def test_numbers_where_nothing_was_measured_do_not_count(tmp_path):
    np.savez(tmp_path / "whole.npz", kspace=to_kspace(images()), acquired=mask())
    read = read_kspace(tmp_path / "whole.npz")
    np.testing.assert_array_equal(read.data, measurement().data)
    lines = mask()[0, :, 0]
    read = read_kspace(write_fastmri(tmp_path / "knee.h5", turned(), mask=lines))
    assert not read.data[..., ~lines].any()


def test_the_sample_of_the_project_is_read_with_its_slices_and_coils_in_their_places():
    read = read_kspace(SAMPLES / "brain_kspace.npz")
    assert (read.shape, read.coils, read.acceleration) == ((4, 176, 134), 8, 1.0)
    assert read.grid.spacing_mm == pytest.approx((4.0, 1.25, 1.25))
    true = np.load(SAMPLES / "brain_kspace.npz")["image"][2].astype(float)
    seen = np.sqrt((np.abs(to_images(read.data[2])) ** 2).sum(axis=0))
    assert np.corrcoef(true.ravel(), seen.ravel())[0, 1] > 0.99
    assert "not known" in read.history[0]


@pytest.mark.parametrize(
    "change",
    ["no kspace", "real", "three axes", "mask", "maps", "affine", "NaN", "one spacing", "mirrored", "two steps"],
)
def test_an_archive_that_is_not_as_documented_is_refused_with_its_name(tmp_path, change):
    content = {"kspace": measurement().data, "acquired": mask()}
    content |= {
        "no kspace": {}, "real": {"kspace": images().real}, "three axes": {"kspace": images()[0]},
        "mask": {"acquired": mask()[:, :5]}, "maps": {"sensitivities": images()[:1]},
        "affine": {"affine": np.zeros((4, 4))}, "NaN": {"kspace": images() * np.nan},
        "one spacing": {"spacing_mm": 2.0},
        "mirrored": {"spacing_mm": [5.0, -1.2, 0.9]},
        "two steps": {"kspace": np.ones((2, 3, 12, 10, 2), np.int16), "kspace_step": [1.0, 2.0, 3.0]},
    }[change]  # fmt: skip
    if change == "no kspace":
        del content["kspace"]
    np.savez(tmp_path / "wrong.npz", **content)
    with pytest.raises(ReadError, match=r"wrong\.npz"):
        read_kspace(tmp_path / "wrong.npz")


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".cfl"])
def test_a_damaged_file_is_refused_and_is_no_k_space(tmp_path, suffix):
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    assert not is_kspace(file)
    with pytest.raises(ReadError, match="broken"):
        read_kspace(file)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".cfl", ".hdr"])
def test_a_file_that_may_not_be_opened_is_no_k_space_and_reading_it_says_why(tmp_path, suffix, monkeypatch):
    for each in {suffix, ".cfl", ".hdr"}:
        (tmp_path / f"closed{each}").write_bytes(bytes(9))

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    monkeypatch.setattr(Path, "read_text", closed)
    monkeypatch.setattr(h5py, "File", closed)
    assert not is_kspace(tmp_path / f"closed{suffix}")
    with pytest.raises(ReadError, match=r"closed.*Permission denied"):
        read_kspace(tmp_path / f"closed{suffix}")


def test_a_truncated_archive_is_refused(tmp_path):
    file = write_kspace(measurement(), tmp_path / "short.npz")
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ReadError, match=r"short\.npz"):
        read_kspace(file)


def test_an_archive_of_pickles_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", kspace=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ReadError, match=r"objects\.npz"):
        read_kspace(tmp_path / "objects.npz")


def test_what_is_not_there_or_has_another_suffix_is_refused(tmp_path):
    with pytest.raises(ReadError, match="no such file"):
        read_kspace(tmp_path / "nothing.npz")
    (tmp_path / "scan.nii").write_bytes(b"x")
    with pytest.raises(ReadError, match=r"accepted are \.h5"):
        read_kspace(tmp_path / "scan.nii")
    with pytest.raises(OutputError, match="npz"):
        write_kspace(measurement(), tmp_path / "out.h5")
    assert ".npz" in KSPACE_SUFFIXES


def test_a_mask_of_another_shape_is_refused_with_both_shapes(tmp_path):
    data = measurement().data
    np.savez(tmp_path / "a.npz", kspace=data, acquired=np.ones((3, 3), bool))
    with pytest.raises(ReadError, match=r"acquired is of shape \(3, 3\); .* is needed"):
        read_kspace(tmp_path / "a.npz")


# BART: its documented layout, written by hand


def write_bart(folder: Path, stored: np.ndarray, sizes: list[int]) -> Path:
    stored.astype("<c8").ravel(order="F").tofile(folder / "scan.cfl")
    (folder / "scan.hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n# Creator\nby hand\n")
    return folder / "scan.cfl"


def test_bart_counts_read_phase_coil_and_slice_from_the_fastest(tmp_path):
    data = measurement().data
    slices, coils, rows, columns = SHAPE
    sizes = [columns, rows, 1, coils, *[1] * 9, slices, 1, 1]
    file = write_bart(tmp_path, data.transpose(3, 2, 1, 0).reshape(sizes), sizes)
    read = read_kspace(file)
    np.testing.assert_array_equal(read.data, data)
    np.testing.assert_array_equal(read.acquired, mask())
    assert NO_PLACE in read.history[0]
    assert "rows are PHS1, columns READ" in read.history[0]
    assert is_kspace(file)
    assert is_kspace(tmp_path / "scan.hdr")


def test_bart_with_two_phases_and_one_place_of_the_readout_is_one_slice(tmp_path):
    data = measurement().data[0]
    sizes = [1, SHAPE[3], SHAPE[2], SHAPE[1]]
    read = read_kspace(write_bart(tmp_path, data.transpose(2, 1, 0)[None], sizes))
    np.testing.assert_array_equal(read.data[0], data)
    assert "rows are PHS2, columns PHS1" in read.history[0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([4, 4, 4, 2], "3D measurement"), ([4, 4, 1, 2, 3], "MAPS 3"), ([4, 4, 1, 3], "truncated"), ([0, 4], "sizes")],
)
def test_bart_that_is_no_stack_of_slices_is_refused_with_the_reason(tmp_path, sizes, message):
    count = int(np.prod(sizes)) - (8 if message == "truncated" else 0)
    file = write_bart(tmp_path, np.ones(count), sizes)
    with pytest.raises(ReadError, match=message):
        read_kspace(file)


def test_half_of_a_bart_pair_and_the_header_of_another_format_are_told(tmp_path):
    file = write_bart(tmp_path, np.ones(16), [4, 4])
    (tmp_path / "scan.hdr").write_bytes(bytes([92, 1]) + bytes(346))
    assert not is_kspace(tmp_path / "scan.hdr")
    with pytest.raises(ReadError, match="not BART's header"):
        read_kspace(file)
    (tmp_path / "scan.hdr").unlink()
    with pytest.raises(ReadError, match="belong together"):
        read_kspace(file)


# ISMRMRD: written by the ismrmrd package

COLUMNS = 2 * SHAPE[3]
"""Twofold readout oversampling."""
READ, PHASE = np.array([0.0, 0.6, 0.8]), np.array([1.0, 0.0, 0.0])
NORMAL = np.cross(READ, PHASE)
MIDDLE = np.array([12.0, -40.0, 71.0])
APART_MM, ROW_MM, COLUMN_MM = 7.0, 1.5, 0.8

HEADER = f"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <encoding>
  <encodedSpace><matrixSize><x>{COLUMNS}</x><y>{SHAPE[2]}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{COLUMNS * COLUMN_MM}</x><y>{SHAPE[2] * ROW_MM}</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{SHAPE[3]}</x><y>{SHAPE[2]}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{SHAPE[3] * COLUMN_MM}</x><y>{SHAPE[2] * ROW_MM}</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{SHAPE[2] - 1}</maximum>
   <center>{SHAPE[2] // 2}</center></kspace_encoding_step_1></encodingLimits>
  <trajectory>cartesian</trajectory>
 </encoding>
</ismrmrdHeader>"""


def oversampled() -> np.ndarray:
    """K-space of the images, with as much air on either side along the readout."""
    start = COLUMNS // 2 - SHAPE[3] // 2
    wide = np.zeros((*SHAPE[:3], COLUMNS), np.complex64)
    wide[..., start : start + SHAPE[3]] = images()
    return to_kspace(wide)


def acquisition(data: np.ndarray, row: int, slice_number: int, place: int, **idx: int) -> ismrmrd.Acquisition:
    made = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64))
    made.center_sample = data.shape[1] // 2
    made.idx.kspace_encode_step_1, made.idx.slice = row, slice_number
    for name, value in idx.items():
        setattr(made.idx, name, value)
    made.read_dir[:], made.phase_dir[:], made.slice_dir[:] = READ, PHASE, NORMAL
    made.position[:] = MIDDLE + place * APART_MM * NORMAL
    return made


def acquisitions() -> list[ismrmrd.Acquisition]:
    """Interleaved slices: the number of a slice is not its place."""
    data = oversampled()
    noise = acquisition(np.ones((SHAPE[1], 8)), 0, 0, 0)
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    rows = np.flatnonzero(mask()[0, :, 0])
    numbers = (1, 2, 0)
    return [noise, *(acquisition(data[k, :, r], int(r), numbers[k], k) for r in rows for k in range(SHAPE[0]))]


def write_ismrmrd(file: Path, made: list[ismrmrd.Acquisition], header: str = HEADER) -> Path:
    with ismrmrd.Dataset(str(file)) as dataset:
        dataset.write_xml_header(header.encode())
        for each in made:
            dataset.append_acquisition(each)
    return file


def test_ismrmrd_gives_the_images_in_their_place_without_oversampling(tmp_path):
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", acquisitions()))
    whole = np.where(mask()[:, None], to_kspace(images()), 0)
    np.testing.assert_allclose(read.data, whole, atol=1e-5)
    np.testing.assert_array_equal(read.acquired, mask())
    assert is_kspace(tmp_path / "scan.h5")


def test_in_ismrmrd_columns_run_along_read_rows_along_phase_and_the_middle_pixel_lies_at_the_position(tmp_path):
    grid = read_kspace(write_ismrmrd(tmp_path / "scan.h5", acquisitions())).grid
    for k in range(3):
        np.testing.assert_allclose(grid.to_mm((k, 6, 5)), MIDDLE + k * APART_MM * NORMAL, atol=1e-4)
    np.testing.assert_allclose(grid.to_mm((0, 6, 7)) - grid.to_mm((0, 6, 5)), 2 * COLUMN_MM * READ, atol=1e-4)
    np.testing.assert_allclose(grid.to_mm((0, 9, 5)) - grid.to_mm((0, 6, 5)), 3 * ROW_MM * PHASE, atol=1e-4)


def test_ismrmrd_names_its_frame_of_reference_where_its_slices_have_a_place(tmp_path):
    told = "<measurementInformation><frameOfReferenceUID>1.2.840.9</frameOfReferenceUID></measurementInformation>"
    header = HEADER.replace(" <encoding>", f" {told}<encoding>", 1)
    made = acquisitions()
    assert read_kspace(write_ismrmrd(tmp_path / "a.h5", made, header)).grid.frame_of_reference == "1.2.840.9"
    assert read_kspace(write_ismrmrd(tmp_path / "b.h5", made)).grid.frame_of_reference is None
    for each in made:
        each.read_dir[:] = each.phase_dir[:] = each.slice_dir[:] = (0, 0, 0)
    assert read_kspace(write_ismrmrd(tmp_path / "c.h5", made, header)).grid.frame_of_reference is None


def test_of_several_repetitions_the_first_is_read_and_averages_are_averaged(tmp_path):
    data = oversampled()
    rows = range(SHAPE[2])
    made = [acquisition(data[0, :, r], r, 0, 0) for r in rows]
    made += [acquisition(3 * data[0, :, r], r, 0, 0, average=1) for r in rows]
    made += [acquisition(99 * data[0, :, r], r, 0, 0, repetition=1) for r in rows]
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", made))
    np.testing.assert_allclose(read.data[0], 2 * to_kspace(images()[0]), atol=1e-4)
    assert "the first of 2 repetitions was read" in read.history


def test_the_last_readout_is_read_and_what_corrects_for_the_surface_coil_is_not(tmp_path):
    made = acquisitions()
    made[-1].setFlag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    body_coil = acquisition(99 * oversampled()[0, :, 0], 0, 1, 0)
    body_coil.setFlag(ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", [*made, body_coil]))
    np.testing.assert_array_equal(read.acquired, mask())
    np.testing.assert_allclose(read.data, np.where(mask()[:, None], to_kspace(images()), 0), atol=1e-5)


def test_a_readout_of_which_all_is_to_be_discarded_is_refused(tmp_path):
    made = acquisitions()
    made[-1].discard_post = COLUMNS + 3
    with pytest.raises(ReadError, match="discarded"):
        read_kspace(write_ismrmrd(tmp_path / "scan.h5", made))


def test_an_empty_header_is_refused(tmp_path):
    file = write_ismrmrd(tmp_path / "scan.h5", acquisitions())
    with h5py.File(file, "a") as content:
        del content["dataset/xml"]
        content.create_dataset("dataset/xml", (0,), h5py.string_dtype())
    with pytest.raises(ReadError, match=r"scan\.h5"):
        read_kspace(file)


def test_a_partial_echo_stays_in_its_place_in_k_space(tmp_path):
    data = oversampled()
    made = []
    for row in range(SHAPE[2]):
        echo = acquisition(data[0, :, row, 6:], row, 0, 0)
        echo.center_sample = COLUMNS // 2 - 6
        made.append(echo)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", made))
    assert read.acquired[0, 0].tolist() == [False] * 3 + [True] * 7
    true = to_kspace(images()[0])[..., 5:8]
    assert np.corrcoef(np.abs(true).ravel(), np.abs(read.data[0][..., 5:8]).ravel())[0, 1] > 0.9


def test_slices_that_are_no_regular_stack_are_refused(tmp_path):
    made = acquisitions()
    for each in made:
        if each.idx.slice == 0:
            each.position[:] = MIDDLE + 3.5 * APART_MM * NORMAL
    with pytest.raises(GeometryError, match="not evenly"):
        read_kspace(write_ismrmrd(tmp_path / "scan.h5", made))
    turned = acquisitions()
    turned[-1].read_dir[:], turned[-1].phase_dir[:] = PHASE, READ
    for each in turned:
        if each.idx.slice == turned[-1].idx.slice:
            each.read_dir[:], each.phase_dir[:] = PHASE, READ
    with pytest.raises(GeometryError, match="different directions"):
        read_kspace(write_ismrmrd(tmp_path / "turned.h5", turned))


def test_without_directions_the_place_is_said_to_be_unknown(tmp_path):
    made = acquisitions()
    for each in made:
        each.read_dir[:] = each.phase_dir[:] = each.slice_dir[:] = (0, 0, 0)
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", made))
    assert NO_PLACE in read.history[-1]
    assert read.grid.spacing_mm == pytest.approx((5.0, ROW_MM, COLUMN_MM))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cartesian", "radial", "trajectory is radial"),
        ("<z>1</z></matrixSize>", "<z>24</z></matrixSize>", "3D measurement"),
        (f"<y>{SHAPE[2]}</y>", "<y>4</y>", "outside the encoded matrix"),
        (f"<y>{SHAPE[2]}</y>", "<y>100000</y>", "up to 8192 a side"),
        ("<fieldOfView_mm>", "<fov>", "cannot be understood"),
        (f"<x>{COLUMNS}</x>", "", "matrix"),
    ],
)
def test_a_header_that_cannot_be_followed_is_refused_with_the_reason(tmp_path, old, new, message):
    file = write_ismrmrd(tmp_path / "scan.h5", acquisitions(), HEADER.replace(old, new))
    with pytest.raises(ReadError, match=message):
        read_kspace(file)


def test_a_file_of_noise_alone_is_refused(tmp_path):
    with pytest.raises(ReadError, match="belongs to an image"):
        read_kspace(write_ismrmrd(tmp_path / "scan.h5", acquisitions()[:1]))


# fastMRI


def write_fastmri(file: Path, data: np.ndarray, **more: object) -> Path:
    with h5py.File(file, "w") as content:
        content["kspace"] = data
        for name, value in more.items():
            content[name] = value
        content.attrs["acquisition"] = "CORPD_FBK"
    return file


def turned() -> np.ndarray:
    """As fastMRI stores it: (slice, coil, readout, phase), the readout oversampled."""
    return oversampled().swapaxes(-1, -2)


def test_fastmri_has_its_readout_along_the_rows_and_its_mask_along_the_columns(tmp_path):
    lines = mask()[0, :, 0]
    file = write_fastmri(tmp_path / "knee.h5", turned() * lines, mask=lines.astype(np.float32), ismrmrd_header=HEADER)
    read = read_kspace(file)
    np.testing.assert_allclose(
        read.data, (np.where(mask()[:, None], to_kspace(images()), 0)).swapaxes(-1, -2), atol=1e-5
    )
    np.testing.assert_array_equal(read.acquired, mask().swapaxes(-1, -2))
    assert read.grid.spacing_mm == pytest.approx((5.0, COLUMN_MM, ROW_MM))
    assert NO_PLACE in read.history[0]
    assert is_kspace(file)


def test_a_single_coil_without_a_mask_or_a_header_is_read_and_says_what_it_lacks(tmp_path):
    lines = mask()[0, :, 0]
    read = read_kspace(write_fastmri(tmp_path / "knee.h5", (turned() * lines)[:, 0]))
    assert (read.coils, read.shape) == (1, (3, COLUMNS, SHAPE[2]))
    np.testing.assert_array_equal(read.acquired[0, 0], lines)
    assert "spacing is not known" in read.history[-1]


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (np.ones((3, 4), np.complex64), {}, "shape"),
        (np.ones((3, 2, 6, 4), np.float32), {}, "float32"),
        (np.ones((3, 2, 6, 4), np.complex64), {"mask": np.ones(5)}, "mask"),
        (np.ones((3, 2, 6, 4), np.complex64), {"ismrmrd_header": "no xml"}, "header"),
    ],
)
def test_a_fastmri_file_of_another_shape_is_refused(tmp_path, data, more, message):
    with pytest.raises(ReadError, match=message):
        read_kspace(write_fastmri(tmp_path / "wrong.h5", data, **more))


def test_an_hdf5_file_of_something_else_is_refused_and_named(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as content:
        content["weights"] = [1.0]
    assert not is_kspace(tmp_path / "other.h5")
    with pytest.raises(ReadError, match=r"neither ISMRMRD .* weights"):
        read_kspace(tmp_path / "other.h5")


def test_without_h5py_the_extra_to_install_is_named(tmp_path, monkeypatch):
    file = write_fastmri(tmp_path / "knee.h5", turned())
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert is_kspace(file)
    with pytest.raises(ReadError, match=r'pip install "tomolens\[kspace\]"'):
        read_kspace(file)
