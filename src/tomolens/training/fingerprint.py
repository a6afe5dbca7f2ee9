"""Short hashes of data: a run that was stopped goes on with the same, and a model says what it learned from."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.training.dataset import Split

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

Record = Sequence[tuple[str, str]]
"""What a run is made from, in order: each thing as it is called, its kind first, and a hash of it.

Before the kind of what was kept out stands `Split.VAL`.
"""
_CONTENTS = ("scan", "cube", "nodule")
_COLUMNS = ("split", "kind", "fingerprint")


def fingerprint(*arrays: NDArray[Any]) -> str:
    """The same for the same numbers, wherever and in whatever files they lie."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_of_volume(*volumes: Volume) -> str:
    """The same for the same voxels in the same place, to a hundredth of a millimetre, in whatever order of axes."""
    arrays: list[NDArray[Any]] = []
    for scan in (volume.canonical() for volume in volumes):
        arrays += [scan.voxels.astype(np.float32), _place(scan)]
    return fingerprint(*arrays)


def fingerprint_of_axes(volume: Volume) -> str:
    """The same for the same order and direction of axes in the same place."""
    return fingerprint(_place(volume))


def _place(volume: Volume) -> NDArray[np.float64]:
    return np.asarray(np.round(volume.grid.affine, 2) + 0.0)  # which makes -0 to 0


def fingerprint_of_cube(image: NDArray[Any], mask: NDArray[Any]) -> str:
    """The same for the same HU and the same mask, of whatever types the numbers are."""
    return fingerprint(image.astype(np.float32), mask > 0)


def differences(before: Record, now: Record) -> dict[str, list[str]]:
    """What ``changed``, is ``gone`` and is ``new``; what is ``in another order`` where that alone differs."""
    old, new = dict(before), dict(now)
    found = {
        "changed": [what for what in new if what in old and old[what] != new[what]],
        "gone": [what for what in old if what not in new],
        "new": [what for what in new if what not in old],
    }
    if not any(found.values()) and list(before) != list(now):
        return {"in another order": [one[0] for one, then in zip(now, before, strict=False) if one != then]}
    return {kind: names for kind, names in found.items() if names}


Content = tuple[str, str, str]
"""A scan, cube or nodule of a run, without its name: split, kind, hash."""


def contents(record: Record) -> list[Content]:
    """The scans, cubes and nodules of a run, by what was done with them."""
    rows: list[Content] = []
    for what, seen in record:
        first, _, rest = what.partition(" ")
        split, kind = (Split.VAL, rest.split()[0]) if first == Split.VAL else (Split.TRAIN, first)
        if kind in _CONTENTS:
            rows.append((split, kind, seen))
    return rows


def write_contents(rows: Iterable[Content], file: Path) -> None:
    """A table of them, each once."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([_COLUMNS, *dict.fromkeys(rows)])


def read_contents(file: Path) -> list[Content]:
    """The rows of `write_contents`."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [(row["split"], row["kind"], row["fingerprint"]) for row in csv.DictReader(stream)]
