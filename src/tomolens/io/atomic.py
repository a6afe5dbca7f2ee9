"""Whole files or none, after a kill, not after a power cut: written beside the target, then renamed.

Nothing is flushed to the disk (fsync) before the rename, so what a machine that loses power leaves is not promised.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from time import time
from uuid import uuid4

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}-")
_LEFT_BEHIND_S = 24 * 3600
_TRIES = 10
_COLLISIONS = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
"""What renaming a folder meets where another process puts its own there at the same time."""


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; rename it to ``path`` at the end.

    The temporary name keeps every suffix, in lower case, since many writers choose their format by it, and the folder
    is made where it is absent. If the body raises, the temporary file is removed and what stood at ``path`` stays as
    it was.
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

    If the body raises, the temporary folder is removed and what stood at ``path`` stays as it was. Of several
    processes that write the same folder at once, the last one's stands.
    """
    path = Path(path)
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(folder: Path, path: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            return _exchange(folder, path)
        except OSError as collision:
            if collision.errno not in _COLLISIONS or not tries_left:
                raise


def _exchange(folder: Path, path: Path) -> None:
    """Rename ``folder`` to ``path``. What stood there is removed once something new stands there, else put back."""
    old = _beside(path)
    try:
        with suppress(FileNotFoundError):
            path.rename(old)
        folder.rename(path)
    finally:
        with suppress(OSError):
            if not path.exists():
                old.rename(path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A temporary name beside ``path``; what a killed process left under such a name more than a day ago is removed.

    Another process may take such a file away, or own it, at any moment: nothing that fails in removing it counts.
    """
    name = path.name.lower()
    with suppress(OSError):
        for left in path.parent.glob(f".*-*-{escape(name)}"):
            if _TEMPORARY.match(left.name) and time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{os.getpid()}-{uuid4().hex[:8]}-{name}")
