"""A bundle of MONAI's model zoo by its name: from the zoo's public releases, a mirror of them, or a copy on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from tomolens.core.errors import ModelError, ReadError
from tomolens.core.progress import Progress, Step, silent
from tomolens.models.import_archive import LARGEST_ARCHIVE
from tomolens.models.import_config import LARGEST_JSON

INDEX = "https://raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"
"""Name and version of every bundle to its SHA-1 and its zip's address."""
INDEX_NAME = "model_info.json"
_TIMEOUT_S = 30
_BLOCK = 2**20
_VERSIONED = re.compile(r"(?P<name>\w+?)_v(?P<version>\d+(?:\.\d+)*)")


def fetch(name: str, folder: Path, mirror: str | None = None, progress: Progress = silent) -> Path:
    """Get a bundle's zip into a folder and check its hash.

    Parameters
    ----------
    name
        As in the zoo, e.g. ``spleen_ct_segmentation`` (the newest version) or ``spleen_ct_segmentation_v0.3.7``.
    folder
        Where the zip is put.
    mirror
        A URL or folder that holds ``model_info.json`` and the zips beside it; None takes the zoo itself.
    progress
        Told of each block, in bytes; may raise `Cancelled`.

    Raises
    ------
    ModelError
        If the zoo has no such bundle or no hash of it, or what came has another hash.
    ReadError
        If it cannot be reached; the message says what to do without a network.
    """
    index = _index(mirror)
    entry, values = _newest(name, index)
    checksum, source = str(values.get("checksum", "")).lower(), str(values.get("source", ""))
    if not re.fullmatch("[0-9a-f]{40}", checksum):
        raise ModelError(f"The index gives no SHA-1 of {entry}; get it yourself and import the folder or zip.")
    if mirror is None and urlsplit(source).scheme != "https":
        raise ModelError(f"The index names {source!r} for {entry}; only https addresses are followed.")
    target = folder / f"{entry}.zip"
    found = _download(source if mirror is None else _beside(mirror, target.name), target, progress)
    if found != checksum:
        target.unlink(missing_ok=True)
        raise ModelError(
            f"{entry} arrived with the SHA-1 {found}, not {checksum} as the index says; it was thrown away."
        )
    return target


def is_zoo_name(word: str) -> bool:
    """Whether a word can be a zoo bundle's name rather than a path."""
    return re.fullmatch(r"\w+(\.\d+)*", word) is not None


def _index(mirror: str | None) -> Mapping[str, Mapping[str, Any]]:
    address = INDEX if mirror is None else _beside(mirror, INDEX_NAME)
    with _opened(address) as stream:
        text = stream.read(LARGEST_JSON + 1)
    try:
        index = json.loads(text) if len(text) <= LARGEST_JSON else None
    except (ValueError, RecursionError) as broken:
        raise ModelError(f"{address} is not JSON: {broken}.") from broken
    if not isinstance(index, dict):
        raise ModelError(f"{address} is no index of bundles.")
    return {str(key): value for key, value in index.items() if isinstance(value, dict)}


def _newest(name: str, index: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    if name in index:
        return name, index[name]
    versions = {
        tuple(map(int, found["version"].split("."))): entry
        for entry in index
        if (found := _VERSIONED.fullmatch(entry)) and found["name"] == name
    }
    if not versions:
        names = sorted({found["name"] for entry in index if (found := _VERSIONED.fullmatch(entry))})
        raise ModelError(f"There is no file {name} here and no such bundle in the zoo; it has {', '.join(names)}.")
    return versions[max(versions)], index[versions[max(versions)]]


def _beside(mirror: str, name: str) -> str:
    if urlsplit(mirror).scheme in ("http", "https", "file"):
        return f"{mirror.rstrip('/')}/{quote(name)}"
    return (Path(mirror).resolve() / name).as_uri()


@contextmanager
def _opened(address: str) -> Iterator[IO[bytes]]:
    try:
        with urlopen(address, timeout=_TIMEOUT_S) as stream:  # https, or the mirror that the user names
            yield stream
    except (URLError, OSError) as unreachable:
        if isinstance(unreachable, ReadError):
            raise
        raise ReadError(
            f"{address} cannot be read: {getattr(unreachable, 'reason', unreachable)}. Without a network, get the "
            "bundle's zip elsewhere and import it by its path, or name a mirror."
        ) from unreachable


def _download(address: str, target: Path, progress: Progress) -> str:
    """Write what the address gives and return its SHA-1, the hash that the zoo publishes."""
    digest, done = hashlib.sha1(usedforsecurity=False), 0
    with _opened(address) as stream, target.open("wb") as file:
        total = int(getattr(stream, "headers", {}).get("Content-Length") or 0)
        progress(Step("download", 0, total))
        while block := stream.read(_BLOCK):
            done += len(block)
            if done > LARGEST_ARCHIVE:
                raise ModelError(f"{address} is larger than {LARGEST_ARCHIVE / 2**30:g} GiB; it was not taken.")
            file.write(block)
            digest.update(block)
            progress(Step("download", done, total))
    return digest.hexdigest()
