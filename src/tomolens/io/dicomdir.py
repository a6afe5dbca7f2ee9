"""The files that a DICOMDIR names (PS3.3 F)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydicom

from tomolens.core.errors import ReadError

if TYPE_CHECKING:
    from pathlib import Path


def is_dicomdir(path: Path) -> bool:
    """Whether a file is an index by its name, which PS3.10 8.6 fixes."""
    return path.name.upper() == "DICOMDIR"


def named_files(path: Path) -> list[Path]:
    """Every file that a DICOMDIR names, there or not, in its order.

    Media written in capitals are often copied into small letters, so letters are compared without case.

    Raises
    ------
    ReadError
        If the index is damaged.
    """
    try:
        records = pydicom.dcmread(path).DirectoryRecordSequence
        names = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    except Exception as broken:  # pydicom meets broken bytes with many kinds of error
        raise ReadError(f"{path}: not a readable DICOMDIR ({broken}).") from broken
    return [_found(path.parent, [name] if isinstance(name, str) else list(name)) for name in names]


def _found(folder: Path, parts: list[str]) -> Path:
    for part in parts:
        exact = folder / part
        alike = () if exact.exists() else (p for p in folder.glob("*") if p.name.lower() == part.lower())
        folder = next(iter(alike), exact)
    return folder
