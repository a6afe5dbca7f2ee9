"""A bundle's zip unpacked, without trusting it: no path, link, size or number of files is taken on faith."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from tomolens.core.errors import ModelError

LARGEST_ARCHIVE = 8 * 2**30
"""Bytes, unpacked. The largest model of the zoo has about 2 GiB."""
MOST_FILES = 10_000
STEEPEST = 200
"""Times that a file may grow: weights hardly do, text about ten times, a bomb a thousand."""
_SMALL = 2**20


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a bundle's zip into an empty folder; the bundle's root in it.

    Raises
    ------
    ModelError
        If it is no zip, or holds what a bundle does not: a path out of the folder, a link, too much.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = checked_entries(opened, archive.name)
            for entry in entries:
                _extract(opened, entry, folder)
    except ModelError:
        raise
    except Exception as broken:  # whatever a damaged or hostile zip makes of its reader, or its names of the disk
        raise ModelError(f"{archive.name} cannot be unpacked: {broken}.") from broken
    return bundle_root(folder, archive.name)


def checked_entries(opened: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """The files in a zip, if all of them may be unpacked.

    Raises
    ------
    ModelError
        With the entry and the reason.
    """
    entries = opened.infolist()
    if len(entries) > MOST_FILES:
        raise ModelError(f"{name} holds {len(entries)} files; at most {MOST_FILES} are unpacked.")
    for entry in entries:
        reason = _suspicion(entry)
        if reason:
            raise ModelError(f"{name}: the entry {entry.filename!r} {reason}; nothing was unpacked.")
    total = sum(entry.file_size for entry in entries)
    if total > LARGEST_ARCHIVE:
        raise ModelError(
            f"{name} unpacks to {total / 2**30:.1f} GiB; at most {LARGEST_ARCHIVE / 2**30:g} are unpacked."
        )
    return [entry for entry in entries if not entry.is_dir()]


def _suspicion(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not unpacked; empty where it may be."""
    path = PurePosixPath(entry.orig_filename)
    outside = path.is_absolute() or ".." in path.parts or any(c in entry.orig_filename for c in "\\:\0")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    reasons = (
        (outside, "has a path that leads out of the folder"),
        (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a device"),
        (bool(entry.flag_bits & 1), "is encrypted"),
        (
            entry.file_size > max(_SMALL, STEEPEST * entry.compress_size),
            f"grows more than {STEEPEST} times when unpacked, as a zip bomb does",
        ),
    )
    return next((reason for suspicious, reason in reasons if suspicious), "")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one file; a size that lies is met by zipfile's own count and checksum."""
    target = folder / PurePosixPath(entry.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as stream, target.open("xb") as file:
        shutil.copyfileobj(stream, file, 2**20)


def bundle_root(folder: Path, name: str) -> Path:
    """The folder that holds ``configs/metadata.json``: this one or the only one in it.

    Raises
    ------
    ModelError
        If there is none, or more than one.
    """
    roots = [folder, *sorted(part for part in folder.iterdir() if part.is_dir())]
    found = [root for root in roots if (root / "configs" / "metadata.json").is_file()]
    if len(found) != 1:
        raise ModelError(
            f"{name} holds {'more than one' if found else 'no'} configs/metadata.json; a MONAI bundle has one."
        )
    return found[0]


def inside(root: Path, path: str, what: str) -> Path:
    """A file named by a bundle, if it lies in the bundle, links followed.

    Raises
    ------
    ModelError
        If it lies elsewhere, or is missing.
    """
    try:
        file = (root / path).resolve()
        is_inside, is_folder, is_file = file.is_relative_to(root.resolve()), file.is_dir(), file.is_file()
    except (OSError, ValueError, RuntimeError) as unreadable:  # a name too long, a NUL in it, links in a circle
        raise ModelError(f"{what} is {path!r:.200}, which cannot be read: {unreadable}.") from unreadable
    if not is_inside:
        raise ModelError(f"{what} is {path!r}, which lies outside the bundle.")
    if not is_file:
        raise ModelError(f"{what} is {path!r}; {'that is a folder' if is_folder else 'the bundle holds no such file'}.")
    return file
