"""Short hashes of data: a run that was stopped goes on with the same, and a model says what it learned from."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

Record = Sequence[tuple[str, str]]
"""What a run is made from, in order: each thing as it is called, its kind first, and a hash of it."""
VAL = " (val)"
"""Follows what was kept out."""
_CONTENTS = ("scan", "cube", "nodule")


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
        arrays += [scan.voxels.astype(np.float32), np.round(scan.grid.affine, 2) + 0.0]  # which makes -0 to 0
    return fingerprint(*arrays)


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


def write_contents(record: Record, file: Path) -> None:
    """A table of the scans, cubes and nodules of a run, by what was done with them (split), without their names."""
    rows = [(what.split()[0], what.endswith(VAL), seen) for what, seen in record]
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["split", "kind", "fingerprint"])
        table.writerows(("val" if out else "train", kind, seen) for kind, out, seen in rows if kind in _CONTENTS)


def learned_from(file: Path) -> set[str]:
    """The fingerprints in a table of `write_contents` that were learned from."""
    with file.open(newline="", encoding="utf-8") as stream:
        return {row["fingerprint"] for row in csv.DictReader(stream) if row["split"] == "train"}
