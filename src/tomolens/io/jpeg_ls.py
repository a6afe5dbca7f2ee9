"""JPEG-LS frames, decoded while other threads run.

pyjpegls calls CharLS with the interpreter lock held, so its threads wait for each other. CharLS' own C function stands
in the same library; called through ctypes it holds no lock, and decodes on as many cores as there are.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_START_OF_FRAME = b"\xff\xf7"
_MESSAGE_BYTES = 256


def decode(frame: bytes, rows: int, columns: int) -> NDArray[np.uint16] | None:
    """Decode one grey frame of 9 to 16 bits; None where pyjpegls must do it.

    That is where its library does not show the C function, or the frame is not what the header says: pyjpegls then says
    what is wrong.
    """
    function = _c_function()
    if function is None or not _is_grey16(frame, rows, columns):
        return None
    out = np.empty((rows, columns), np.uint16)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    failed = function(out.ctypes.data, out.nbytes, frame, len(frame), None, message)
    return None if failed else out


def _is_grey16(frame: bytes, rows: int, columns: int) -> bool:
    """Whether the frame header (ISO 14495-1 C.2.2) has this size, one component and 9 to 16 bits."""
    at = frame.find(_START_OF_FRAME)
    header = frame[at + 4 : at + 10]
    if at < 0 or len(header) < 6:
        return False
    size = (int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big"))
    return 8 < header[0] <= 16 and size == (rows, columns) and header[5] == 1


@cache
def _c_function() -> Callable[..., Any] | None:
    """``JpegLsDecode(destination, bytes, source, bytes, parameters, message)``, the same in every CharLS since 1.1."""
    found = find_spec("_CharLS")
    try:
        function = ctypes.CDLL(str(found.origin)).JpegLsDecode if found else None
    except (OSError, AttributeError):
        return None
    if function is not None:
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        function.argtypes = (pointer, size, ctypes.c_char_p, size, pointer, ctypes.c_char_p)
        function.restype = ctypes.c_int
    return function
