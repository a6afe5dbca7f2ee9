"""The stored pixels of DICOM slices, decoded by free codecs only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame, parse_fragments
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from tomolens.core.errors import ReadError
from tomolens.io import jpeg_ls

if TYPE_CHECKING:
    from tomolens.io.dicom_slice import PixelFormat

_NATIVE = {
    str(uid.ImplicitVRLittleEndian): "<",
    str(uid.ExplicitVRLittleEndian): "<",
    str(uid.DeflatedExplicitVRLittleEndian): "<",
    str(uid.ExplicitVRBigEndian): ">",
}
"""Uncompressed pixels and their byte order (PS3.5 A.1 to A.3, A.5)."""
_CODECS = {
    str(uid.JPEGBaseline8Bit): "gdcm",
    str(uid.JPEGExtended12Bit): "gdcm",
    str(uid.JPEGLossless): "gdcm",
    str(uid.JPEGLosslessSV1): "gdcm",
    str(uid.JPEGLSLossless): "pyjpegls",
    str(uid.JPEGLSNearLossless): "pyjpegls",
    str(uid.JPEG2000Lossless): "pylibjpeg",
    str(uid.JPEG2000): "pylibjpeg",
    str(uid.HTJ2KLossless): "pylibjpeg",
    str(uid.HTJ2KLosslessRPCL): "pylibjpeg",
    str(uid.HTJ2K): "pylibjpeg",
    str(uid.RLELossless): "pydicom",
}
"""Compressed pixels (PS3.5 A.4) and the plug-in of pydicom that decodes them; pylibjpeg stands for its OpenJPEG."""
_JPEG_LS = (str(uid.JPEGLSLossless), str(uid.JPEGLSNearLossless))
_PIXEL_DATA = {"<": b"\xe0\x7f\x10\x00", ">": b"\x7f\xe0\x00\x10"}


def is_supported(pixels: PixelFormat) -> bool:
    """Whether slices stored like this can be decoded."""
    return pixels.transfer_syntax in _NATIVE or pixels.transfer_syntax in _CODECS


def syntax_name(transfer_syntax: str) -> str:
    """The name of a transfer syntax in PS3.6 A, or its UID where it is private."""
    return str(UID(transfer_syntax).name)


def read_frames(path: Path, pixels: PixelFormat, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Read the stored pixels of some frames of one file, (rows, columns) each, in the order asked for.

    All padding has the one value that ``pixels.padding_value`` names.

    Raises
    ------
    ReadError
        If the transfer syntax has no free decoder, the pixels are damaged or cut short, or they need more bits than are
        stated to be stored.
    """
    if not is_supported(pixels):
        raise ReadError(f"{path}: pixels stored as {syntax_name(pixels.transfer_syntax)} have no decoder.")
    try:
        with _at_pixels(path, pixels) as file:
            yield from (_cleaned(frame, pixels) for frame in _frames(file, pixels, frames))
    except Exception as broken:  # each codec has its own kinds of error
        name = syntax_name(pixels.transfer_syntax)
        raise ReadError(f"{path}: the pixels ({name}) cannot be read: {broken}.") from broken


def _at_pixels(path: Path, pixels: PixelFormat) -> BinaryIO:
    """The file at the Pixel Data element; for a deflated data set (PS3.5 A.5), its pixels in such an element."""
    if pixels.offset is not None:
        file = path.open("rb")
        file.seek(pixels.offset)
        return file
    values = pydicom.dcmread(path, specific_tags=["PixelData"]).PixelData
    return BytesIO(_PIXEL_DATA["<"] + b"OW\0\0" + len(values).to_bytes(4, "little") + values)


def _frames(file: BinaryIO, pixels: PixelFormat, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    order = _NATIVE.get(pixels.transfer_syntax, "<")
    if file.read(4) != _PIXEL_DATA[order]:
        raise ValueError("no Pixel Data element where the header ends")
    file.seek(4 if pixels.transfer_syntax == uid.ImplicitVRLittleEndian else 8, 1)
    if pixels.transfer_syntax in _NATIVE:
        return _native(file, pixels, order, frames)
    return _compressed(file, pixels, frames)


def _native(file: BinaryIO, pixels: PixelFormat, order: str, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    stored = stored_type(pixels).newbyteorder(order)  # type: ignore[arg-type]
    count = pixels.rows * pixels.columns
    start = file.tell()
    for frame in frames:
        file.seek(start + frame * count * stored.itemsize)
        values = np.frombuffer(file.read(count * stored.itemsize), stored)
        if values.size != count:
            raise ValueError(f"{values.size} pixels where {count} belong, the file is cut short")
        yield values.reshape(pixels.rows, pixels.columns).astype(stored.newbyteorder("="), copy=False)


def _compressed(file: BinaryIO, pixels: PixelFormat, frames: Iterable[int]) -> Iterator[NDArray[Any]]:
    _refuse_cut_short(file)
    for frame in frames:
        one = get_frame(file, frame, number_of_frames=pixels.frames)
        yield _decoded(one, pixels).view(stored_type(pixels)).reshape(pixels.rows, pixels.columns)


def _refuse_cut_short(file: BinaryIO) -> None:
    """Refuse pixels whose last fragment ends beyond the file: some codecs make up the rest."""
    start = file.tell()
    _, fragments = parse_fragments(file)
    file.seek(fragments[-1] + 4)
    wanted = file.tell() + 4 + int.from_bytes(file.read(4), "little")
    if wanted > file.seek(0, os.SEEK_END):
        raise ValueError("the file is cut short")
    file.seek(start)


def _decoded(frame: bytes, pixels: PixelFormat) -> NDArray[Any]:
    fast = None
    if pixels.transfer_syntax in _JPEG_LS and pixels.bits_allocated == 16:
        fast = jpeg_ls.decode(frame, pixels.rows, pixels.columns)
    return _by_pydicom(frame, pixels) if fast is None else fast


def _by_pydicom(frame: bytes, pixels: PixelFormat) -> NDArray[Any]:
    values, _ = get_decoder(UID(pixels.transfer_syntax)).as_array(
        encapsulate([frame]),
        index=0,
        raw=True,
        decoding_plugin=_CODECS[pixels.transfer_syntax],
        rows=pixels.rows,
        columns=pixels.columns,
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation=pixels.photometric,
        pixel_representation=int(pixels.signed),
        bits_allocated=pixels.bits_allocated,
        bits_stored=pixels.bits_stored,
        pixel_keyword="PixelData",
    )
    return np.asarray(values)


def stored_type(pixels: PixelFormat) -> np.dtype[Any]:
    """The type of the stored values: 8, 16 or 32 bits, signed or not."""
    return np.dtype(f"{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")


def _cleaned(values: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Values that the stored bits can hold, padding as one of them.

    Padding is looked for before anything else: it may need more bits than are stored, and would be tissue without them.
    """
    fill, padding = pixels.padding_value, pixels.padding
    if fill is None or padding is None:
        return _in_stored_bits(values, pixels)
    if padding[0] == padding[1] and _fits(values, pixels):
        return values
    padded = _between(values, padding)
    cleaned = _in_stored_bits(np.where(padded, values.dtype.type(0), values), pixels)
    return np.where(padded | _between(cleaned, padding), values.dtype.type(fill), cleaned)


def _between(values: NDArray[Any], ends: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _in_stored_bits(values: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Values without a stated overlay in the high bits, and with their sign where those are empty (PS3.5 8.1.1)."""
    if _fits(values, pixels):
        return values
    is_unextended = pixels.signed and values.min() >= 0 and values.max() < 1 << pixels.bits_stored
    if not (pixels.has_overlay or is_unextended):
        low, high = pixels.value_range
        found = f"values of {values.min()} to {values.max()}"
        raise ValueError(f"{found}, but the {pixels.bits_stored} bits stored hold {low} to {high}")
    unused = pixels.bits_allocated - pixels.bits_stored
    return (values << unused) >> unused  # the right shift fills with the sign where there is one


def _fits(values: NDArray[Any], pixels: PixelFormat) -> bool:
    low, high = pixels.value_range
    return pixels.bits_allocated == pixels.bits_stored or bool(values.min() >= low and values.max() <= high)
