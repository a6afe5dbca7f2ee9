from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.fileset import FileSet

from tests.io.slices import stored_volume, write_series
from tomolens.core.errors import ReadError
from tomolens.io.dicom_series import find_series
from tomolens.io.read import read_volume


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A written disc: files without suffix, and the index that names them."""
    facts = {"StudyID": "1", "StudyDate": "20200101", "StudyTime": "120000", "PatientName": "A"}
    fileset = FileSet()
    for path in write_series(tmp_path / "scanner", **facts):
        fileset.add(path)
    staging = fileset._tmpdir
    fileset.write(tmp_path / "disc")
    staging.cleanup()  # pydicom leaves it to the garbage collector, which warns
    return tmp_path / "disc"


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
