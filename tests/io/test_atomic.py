from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from tomolens.io.atomic import whole_file, whole_folder


def test_a_whole_file_replaces_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with whole_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.name.endswith(".nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert target.read_text() == "new"


def test_a_file_whose_writing_fails_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def write_half() -> None:
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_whole_folder_replaces_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "results"
    target.mkdir()
    (target / "stale").touch()
    with whole_folder(target) as temporary:
        (temporary / "fresh").touch()
        assert [p.name for p in target.iterdir()] == ["stale"]
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert [p.name for p in target.iterdir()] == ["fresh"]


def test_a_folder_whose_writing_fails_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "results"
    target.mkdir()
    (target / "old").touch()

    def write_half() -> None:
        with whole_folder(target) as temporary:
            (temporary / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert [p.name for p in target.iterdir()] == ["old"]


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a" / "b.txt") as temporary:
        temporary.touch()
    assert (tmp_path / "a" / "b.txt").exists()


def test_what_a_killed_process_left_is_removed_after_a_day_and_nothing_else(tmp_path: Path) -> None:
    old, young, alike = (tmp_path / f".{n}-findings.csv" for n in ("12-0a1b2c3d", "13-0a1b2c3e", "notes-of"))
    for file in (old, young, alike):
        file.write_text("half")
    for file in (old, alike):
        os.utime(file, (0, 0))
    with whole_file(tmp_path / "findings.csv") as temporary:
        temporary.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([young.name, alike.name, "findings.csv"])


def test_a_temporary_that_another_process_renames_meanwhile_does_not_stop_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / ".12-0a1b2c3d-findings.csv"
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([gone]))
    with whole_file(tmp_path / "findings.csv") as temporary:
        temporary.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["findings.csv"]


def test_the_temporary_name_has_its_suffix_in_lower_case(tmp_path: Path) -> None:
    with whole_file(tmp_path / "A.Nii.GZ") as temporary:
        temporary.touch()
    assert temporary.name.endswith(".nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["A.Nii.GZ"]


@pytest.mark.parametrize("stood_there", [True, False])
def test_a_folder_that_another_process_puts_there_meanwhile_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stood_there: bool
) -> None:
    target, rename = tmp_path / "results", Path.rename
    if stood_there:
        target.mkdir()
        (target / "old").touch()

    def overtaken(source: Path, to: Path) -> Path:
        if to == target and not overtakers:
            overtakers.append(source)
            target.mkdir()
            (target / "theirs").touch()
        return rename(source, to)

    overtakers: list[Path] = []
    monkeypatch.setattr(Path, "rename", overtaken)
    with whole_folder(target) as temporary:
        (temporary / "ours").touch()
    assert overtakers
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert [p.name for p in target.iterdir()] == ["ours"]


def test_what_stood_there_is_put_back_where_the_new_folder_cannot_be(tmp_path: Path) -> None:
    target = tmp_path / "results"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), whole_folder(target) as temporary:
        shutil.rmtree(temporary)
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert [p.name for p in target.iterdir()] == ["old"]


def test_two_writers_of_one_folder_both_finish(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for _ in range(50):
                with whole_folder(tmp_path / "results") as temporary:
                    (temporary / name).touch()
        except OSError as failed:
            failures.append(failed)

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert len(list((tmp_path / "results").iterdir())) == 1
