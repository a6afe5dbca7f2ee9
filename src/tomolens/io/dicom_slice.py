"""One slice as its header describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SeriesHeader:
    """What all files of a series share."""

    uid: str
    study_uid: str
    modality: str
    frame_of_reference: str | None
    description: str
    number: int | None
    kernel: str
    manufacturer: str
    patient_id: str
    study_date: str


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one file are stored (PS3.3 C.7.6.3).

    ``offset`` is where the Pixel Data element starts in the file, None where the data set is deflated. ``padding`` is
    the first and last stored value that mark pixels outside the field of view (PS3.3 C.7.5.1.1.2), or None, and
    ``has_overlay`` whether the bits above those stored are stated to hold an overlay (PS3.5 8.1.2).
    """

    transfer_syntax: str
    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    offset: int | None
    padding: tuple[int, ...] | None = None
    has_overlay: bool = False

    @property
    def value_range(self) -> tuple[int, int]:
        """The least and the greatest value that the stored bits can hold."""
        low = -(1 << (self.bits_stored - 1)) if self.signed else 0
        return low, low + (1 << self.bits_stored) - 1

    @property
    def padding_value(self) -> int | None:
        """The one value that all padding has once it is read: the first, or the least where that needs more bits."""
        if self.padding is None:
            return None
        low, high = self.value_range
        return self.padding[0] if low <= self.padding[0] <= high else low


@dataclass(frozen=True, slots=True)
class Rescale:
    """How stored values become numbers: ``slope * stored + intercept`` (PS3.3 C.11.1.1.2).

    ``stated`` is False where the header gives neither; ``has_table`` is True where it gives a table instead.
    """

    slope: float = 1.0
    intercept: float = 0.0
    type: str = ""
    stated: bool = True
    has_table: bool = False


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: a file, or a frame of one.

    Parameters
    ----------
    path, frame
        The file, and which of its frames, from 0.
    position
        Centre of the first pixel, LPS mm (PS3.3 C.7.6.2.1.1).
    orientation
        Row cosines, then column cosines: the directions along which columns and rows count up (same paragraph).
    spacing
        (between rows, between columns) in mm.
    thickness, distance
        Slice thickness, and distance between slices, in mm; None where the header does not say.
    marks
        What tells acquisitions of one place apart (number of acquisition, time, echo, kind of image, ...): a value for
        each of `tomolens.io.dicom_header.MARKS`.
    derivation
        Of a derived image, how it was derived (PS3.3 C.7.6.1.1.3), one step a line; else empty.
    """

    path: Path
    frame: int
    instance_uid: str
    instance_number: int
    series: SeriesHeader
    pixels: PixelFormat
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None
    distance: float | None
    rescale: Rescale
    image_type: tuple[str, ...]
    marks: tuple[str, ...]
    is_multienergy: bool = False
    is_lossy: bool = False
    derivation: str = ""

    @property
    def depth(self) -> float | None:
        """How much the slice stands for in mm: its thickness, else the distance to the next; None without either."""
        return self.thickness or self.distance

    @property
    def is_localizer(self) -> bool:
        """Whether this is a scout: value 3 of Image Type (PS3.3 C.8.2.1.1.1, C.8.3.1.1.1, C.8.15.2.1.1)."""
        return "LOCALIZER" in self.image_type[2:]

    @property
    def where(self) -> str:
        """The file and, in a file of several frames, the frame counted from 1."""
        return self.path.name if self.pixels.frames == 1 else f"{self.path.name} frame {self.frame + 1}"
