from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jpeg_ls as charls
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder

from tests.io.slices import stored_volume, write_enhanced, write_series, write_slice
from tomolens.core.errors import ReadError
from tomolens.io import jpeg_ls
from tomolens.io.dicom_header import read_slices
from tomolens.io.dicom_pixels import _CODECS, read_frames
from tomolens.io.dicom_slice import PixelFormat
from tomolens.io.read import read_volume

MISC = "dicom_tricky/transfer_syntaxes_misc"


def pixel_format(path: Path) -> PixelFormat:
    """How a file's pixels are stored, also where the file has no place in the patient and so is no slice."""
    with path.open("rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        offset = file.tell()
    return PixelFormat(
        str(header.file_meta.TransferSyntaxUID),
        header.Rows,
        header.Columns,
        int(header.get("NumberOfFrames") or 1),
        header.BitsAllocated,
        header.BitsStored,
        header.PixelRepresentation == 1,
        header.PhotometricInterpretation,
        offset,
    )


def stored_in(path: Path) -> NDArray[Any]:
    """(frames, rows, columns), as stored."""
    pixels = pixel_format(path)
    return np.stack(list(read_frames(path, pixels, range(pixels.frames))))


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_every_lossless_syntax_gives_the_same_numbers(tmp_path: Path, syntax: str, dtype: Any) -> None:
    stored = (np.arange(3 * 64 * 48).reshape(3, 64, 48) % 251).astype(dtype)
    if np.iinfo(dtype).min < 0:
        stored[0] -= 1000
    write_series(tmp_path, stored, syntax=syntax)
    assert np.array_equal(read_volume(tmp_path).voxels, stored.astype(int) - 1024)


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless], ids=lambda syntax: syntax.name
)
def test_every_frame_of_a_file_is_decoded_by_itself(tmp_path: Path, syntax: str) -> None:
    stored = stored_volume(40)
    path = write_enhanced(
        tmp_path / "a", [(s, {"position": (0, 0, 2.0 * k)}) for k, s in enumerate(stored)], syntax=syntax
    )
    pixels = read_slices(path)[0].pixels
    assert np.array_equal(np.stack(list(read_frames(path, pixels, [39, 0, 7]))), stored[[39, 0, 7]])
    assert np.array_equal(read_volume(path).voxels, stored - 1024)


def test_one_real_slice_in_nine_encodings_has_the_same_pixels_in_each(shared_data: Path) -> None:
    folder = shared_data / "dicom_tricky" / "transfer_syntaxes_same_slice"
    volumes = [read_volume(folder / f"{n}.dcm") for n in range(1, 10)]
    assert len({v.series.transfer_syntax for v in volumes if v.series}) >= 6
    assert volumes[0].voxels.max() > 1000
    for volume in volumes[1:]:
        assert np.array_equal(volume.voxels, volumes[0].voxels)
        assert volume.grid.same_place(volumes[0].grid)


def test_a_mosaic_of_slices_is_said_to_be_one(shared_data: Path) -> None:
    volume = read_volume(shared_data / "dicom_tricky" / "transfer_syntaxes_same_slice" / "1.dcm")
    assert volume.series is not None
    assert [p.kind for p in volume.series.problems] == ["mosaic"]


@pytest.mark.parametrize("syntax", sorted(_CODECS), ids=lambda syntax: uid.UID(syntax).name)
def test_the_decoder_of_every_syntax_that_is_accepted_is_installed(syntax: str) -> None:
    assert _CODECS[syntax] in get_decoder(uid.UID(syntax)).available_plugins


def encapsulated(path: Path, syntax: str, frame: bytes) -> Path:
    """A slice of 8 bits whose pixels are this compressed frame."""
    write_slice(path, np.zeros((64, 48), np.uint8), syntax=uid.JPEGLSLossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset.LossyImageCompression = "01"
    dataset.save_as(path)
    return path


def test_lossy_jpeg_is_read_and_said_to_be_lossy(tmp_path: Path) -> None:
    picture = io.BytesIO()
    grey = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    Image.fromarray(grey).save(picture, "JPEG", quality=95)
    volume = read_volume(encapsulated(tmp_path / "a", uid.JPEGBaseline8Bit, picture.getvalue()))
    assert np.abs(volume.voxels[0].astype(int) + 1024 - grey).max() <= 3
    assert volume.series is not None
    assert [p.kind for p in volume.series.problems] == ["lossy-compression"]


def test_near_lossless_jpeg_ls_is_read_within_its_error(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 48)).astype(np.uint8)
    frame = bytes(charls.encode_array(grey, lossy_error=2))
    volume = read_volume(encapsulated(tmp_path / "a", uid.JPEGLSNearLossless, frame))
    assert 0 < np.abs(volume.voxels[0].astype(int) + 1024 - grey).max() <= 2


def test_a_real_multi_frame_mr_has_the_same_pixels_in_four_encodings(shared_data: Path) -> None:
    names = ("big_endian", "RLE", "jpeg_ls_lossless", "jpeg_2k_lossless")
    first, *others = (stored_in(shared_data / MISC / f"emri_small_{name}.dcm") for name in names)
    assert first.shape == (10, 64, 64)
    assert first.std() > 10
    for other in others:
        assert np.array_equal(other, first)


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KR.dcm",
        "JLSL_16_15_1_1F.dcm",
        "JPEG-LL.dcm",
        "JPEG2000_UNC.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "MR-SIEMENS-DICOM-WithOverlays.dcm",
        "explicit_VR-UN.dcm",
        "vlut_04.dcm",
    ],
)
def test_real_pixels_are_what_pydicom_decodes(shared_data: Path, name: str) -> None:
    path = shared_data / MISC / name
    assert np.array_equal(stored_in(path)[0], pydicom.dcmread(path).pixel_array)


def test_a_real_image_of_more_bits_than_it_says_is_refused_with_the_numbers(shared_data: Path) -> None:
    with pytest.raises(ReadError, match="values of -2048 to 4095, but the 12 bits stored hold -2048 to 2047"):
        stored_in(shared_data / MISC / "mlut_18.dcm")


def test_the_two_encodings_of_one_real_nuclear_image_agree(shared_data: Path) -> None:
    compressed, plain = (stored_in(shared_data / MISC / name) for name in ("JPEG-LL.dcm", "JPEG2000_UNC.dcm"))
    assert compressed.shape == plain.shape == (1, 1024, 256)


def test_damaged_real_pixels_are_refused_with_the_file_and_the_encoding(shared_data: Path) -> None:
    path = shared_data / "dicom_tricky" / "malformed" / "fda_j2k_bad_psot_000350.dcm"
    with pytest.raises(ReadError, match=r"fda_j2k_bad_psot_000350\.dcm: the pixels \(JPEG 2000.*cannot be read"):
        read_volume(path)


def test_real_pixels_that_lack_only_the_end_mark_are_read(shared_data: Path) -> None:
    whole = stored_in(shared_data / MISC / "emri_small_jpeg_2k_lossless.dcm")
    unmarked = shared_data / "dicom_tricky" / "malformed" / "emri_small_jpeg_2k_lossless_too_short.dcm"
    assert np.array_equal(stored_in(unmarked), whole)


@pytest.mark.parametrize("number", [4, 5, 7, 9])
def test_compressed_pixels_cut_short_are_refused_whatever_the_codec_makes_of_them(
    shared_data: Path, tmp_path: Path, number: int
) -> None:
    content = (shared_data / "dicom_tricky" / "transfer_syntaxes_same_slice" / f"{number}.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-2000])
    with pytest.raises(ReadError, match="the file is cut short"):
        read_volume(tmp_path / "cut.dcm")


def test_a_real_file_with_a_bad_sequence_is_read(shared_data: Path) -> None:
    volume = read_volume(shared_data / "dicom_tricky" / "malformed" / "bad_sequence.dcm")
    assert (volume.shape, int(volume.voxels.min())) == ((1, 512, 512), -1011)


def test_a_syntax_without_a_free_decoder_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", stored_volume(1)[0], syntax=uid.JPEGLSLossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.save_as(path)
    with pytest.raises(ReadError, match=r"stored as MPEG2 .*no decoder"):
        read_volume(path)


def test_jpeg_ls_is_decoded_alike_with_and_without_the_c_function(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "open" / "ct" / "LIDC-IDRI-0314" / "0100.dcm"
    assert jpeg_ls._c_function() is not None
    fast = stored_in(path)
    monkeypatch.setattr(jpeg_ls, "_c_function", lambda: None)
    assert np.array_equal(stored_in(path), fast)


def test_a_damaged_jpeg_ls_frame_is_left_to_pyjpegls_which_says_so(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "a",
        np.random.default_rng(0).integers(0, 4000, (40, 40)).astype(np.uint16),
        syntax=uid.JPEGLSLossless,
    )
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert jpeg_ls.decode(frame, 40, 40) is not None
    assert jpeg_ls.decode(frame, 41, 40) is None
    assert jpeg_ls.decode(frame[: len(frame) // 2], 40, 40) is None
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ReadError, match=r"JPEG-LS Lossless Image Compression.*cut short"):
        read_volume(path)
