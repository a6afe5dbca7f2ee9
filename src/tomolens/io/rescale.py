"""Stored values into numbers with a unit: exact 16-bit integers where they are that, else float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_INT16 = np.iinfo(np.int16)


def is_whole(slope: float, intercept: float) -> bool:
    """Whether ``slope * stored + intercept`` turns integers into integers."""
    return float(slope).is_integer() and float(intercept).is_integer()


def fits_int16(stored: NDArray[Any], slope: float, intercept: float) -> bool:
    """Whether the rescaled values are all exact 16-bit integers."""
    if stored.dtype.kind not in "iu" or not is_whole(slope, intercept):
        return False
    ends = (slope * float(stored.min()) + intercept, slope * float(stored.max()) + intercept)
    return bool(_INT16.min <= min(ends) and max(ends) <= _INT16.max)


def rescale_into(out: NDArray[Any], stored: NDArray[Any], slope: float, intercept: float) -> None:
    """Write ``slope * stored + intercept`` into ``out``, int16 where `fits_int16`, or float32.

    Integers are computed modulo 2^16, which is exact for every result that fits.
    """
    np.copyto(out, stored, casting="unsafe")
    as_type = _wrapped if out.dtype == np.int16 else float
    if slope != 1:
        out *= as_type(slope)
    if intercept != 0:
        out += as_type(intercept)


def rescaled(stored: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> NDArray[Any]:
    """``slope * stored + intercept`` as int16 where that is exact, else float32."""
    out = np.empty(stored.shape, np.int16 if fits_int16(stored, slope, intercept) else np.float32)
    rescale_into(out, stored, slope, intercept)
    return out


def _wrapped(value: float) -> int:
    return (int(value) - _INT16.min) % 65536 + _INT16.min
