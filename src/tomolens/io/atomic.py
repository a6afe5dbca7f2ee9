"""Whole files or none: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from time import time
from uuid import uuid4

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}-")
_LEFT_BEHIND_S = 24 * 3600


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; rename it to ``path`` at the end.

    The temporary name keeps every suffix, since many writers choose their format by it, and the folder is made where
    it is absent. If the body raises, the temporary file is removed and what stood at ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; rename it to ``path`` at the end, in place of what stood there.

    If the body raises, the temporary folder is removed and what stood at ``path`` stays as it was.
    """
    path = Path(path)
    temporary, old = _beside(path), _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A temporary name beside ``path``; what a killed process left under such a name more than a day ago is removed."""
    for left in path.parent.glob(f".*-*-{escape(path.name)}"):
        if _TEMPORARY.match(left.name) and time() - left.stat().st_mtime > _LEFT_BEHIND_S:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{os.getpid()}-{uuid4().hex[:8]}-{path.name}")
