"""Short hashes of data, by which a run that was stopped knows whether it goes on with the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

Record = Sequence[tuple[str, str]]
"""What a run is made from, in order: each thing as it is called, and a hash of it."""


def fingerprint(*arrays: NDArray[Any]) -> str:
    """The same for the same numbers, wherever and in whatever files they lie."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_of_volume(volume: Volume) -> str:
    """The same for the same voxels in the same place, to a hundredth of a millimetre, in whatever order of axes."""
    scan = volume.canonical()
    return fingerprint(scan.voxels.astype(np.float32), np.round(scan.grid.affine, 2) + 0.0)  # which makes -0 to 0


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
