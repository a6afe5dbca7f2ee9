from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from tests.io.slices import stored_volume, write_series
from tomolens.core.errors import ReadError
from tomolens.io.dicom_series import find_series
from tomolens.io.read import read_volume


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A written disc: files without suffix, and the index that names them."""
    files = write_series(tmp_path / "disc" / "STUDY", name="IM{:06d}")
    records = [_record("PATIENT"), _record("SERIES"), *(_record("IMAGE", ["STUDY", path.name]) for path in files)]
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.FileSetID = "DISC"
    index.DirectoryRecordSequence = records
    index.save_as(tmp_path / "disc" / "DICOMDIR", enforce_file_format=True)
    return tmp_path / "disc"


def _record(kind: str, file: list[str] | None = None) -> Dataset:
    record = Dataset()
    record.DirectoryRecordType = kind
    if file:
        record.ReferencedFileID = file
    return record


def test_a_dicomdir_is_read_through_the_files_it_names(disc: Path) -> None:
    assert np.array_equal(read_volume(disc / "DICOMDIR").voxels, stored_volume() - 1024)


def test_a_folder_with_a_dicomdir_is_read_and_the_index_passed_over(disc: Path) -> None:
    scan = find_series(disc)
    assert [len(s.files) for s in scan] == [6]
    assert [(p.path.name, p.reason) for p in scan.passed_over] == [
        ("DICOMDIR", "a DICOMDIR index; the files it names are read themselves")
    ]


def test_a_file_that_a_dicomdir_names_in_vain_is_reported(disc: Path) -> None:
    files = [p for p in disc.rglob("*") if p.is_file() and p.name != "DICOMDIR"]
    files[0].unlink()
    scan = find_series(disc / "DICOMDIR")
    assert [(p.path, p.reason) for p in scan.passed_over] == [(files[0], "no such file")]


def test_names_in_capitals_find_files_in_small_letters(disc: Path) -> None:
    for path in sorted(disc.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(path.name.lower()))
    assert [len(s.files) for s in find_series(disc / "DICOMDIR")] == [6]


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 200)
    with pytest.raises(ReadError, match="not a readable DICOMDIR"):
        find_series(tmp_path / "DICOMDIR")
