"""Header values as plain Python values, read fast and forgivingly.

pydicom's own conversion of one element costs as much as parsing the whole header; a folder of ten thousand slices needs
forty of them a file. Here the raw bytes are read directly.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Container, Iterator, Mapping
from typing import TypeAlias

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from tomolens.core.errors import ReadError

Element: TypeAlias = RawDataElement | DataElement

_ESCAPE = b"\x1b"
"""Starts another character set within a text (PS3.5 6.1.2.5)."""
_BINARY = {
    "TemporalPositionIndex": "I",
    "FrameAcquisitionNumber": "H",
    "EffectiveEchoTime": "d",
    "DiffusionBValue": "d",
    "DiffusionGradientOrientation": "d",
}
"""Elements told by `Elements.shown` that are no text, and how their numbers are packed (PS3.5 6.2)."""
_TAGS: dict[str, int] = {}
"""Keywords already looked up in the dictionary of PS3.6, which never changes."""


class Elements:
    """The elements of one data set or sequence item, by keyword.

    An absent or empty element is an empty text, an empty tuple or None.
    """

    def __init__(self, dataset: Dataset, overlay: Mapping[int, Element] | None = None) -> None:
        self._dataset = dataset
        self._elements: dict[int, Element] = {**dict(dataset.items()), **(overlay or {})}

    def __contains__(self, keyword: str) -> bool:
        return tag(keyword) in self._elements

    def text(self, keyword: str) -> str:
        """The value as text without padding; several values stay joined by backslashes."""
        element = self._element(keyword)
        if isinstance(element, bytes):
            return element.decode("latin-1").strip(" \0")
        return element

    def named(self, keyword: str) -> str:
        """A text that may hold any character, decoded by the file's character set."""
        raw = self._element(keyword)
        if isinstance(raw, bytes) and raw.isascii() and _ESCAPE not in raw:
            return self.text(keyword)
        return str(self._dataset.get(keyword) or "").strip()

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Each value as text."""
        text = self.text(keyword)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def floats(self, keyword: str) -> tuple[float, ...]:
        """The values of a decimal string, or of binary floats.

        Raises
        ------
        ReadError
            If a value is no number.
        """
        try:
            values = tuple(float(part) for part in self.texts(keyword))
        except ValueError:
            values = (math.nan,)
        if not all(map(math.isfinite, values)):
            raise ReadError(f"{keyword} is {self.text(keyword)!r}, not numbers")
        return values

    def float(self, keyword: str) -> float | None:
        """The first value of a decimal string."""
        values = self.floats(keyword)
        return values[0] if values else None

    def integer(self, keyword: str) -> int | None:
        """The first value of an integer string."""
        value = self.float(keyword)
        return None if value is None else int(value)

    def binary(self, keyword: str | int) -> int | None:
        """The first value of an unsigned binary integer (VR US or UL), by keyword or, where groups repeat, number."""
        element = self._elements.get(tag(keyword) if isinstance(keyword, str) else keyword)
        value = None if element is None else element.value
        if isinstance(element, RawDataElement) and isinstance(value, bytes):
            size = 4 if len(value) == 4 else 2
            return int.from_bytes(value[:size], "little" if element.is_little_endian else "big") if value else None
        return None if value in (None, "") else int(value if isinstance(value, int) else value[0])

    def shown(self, keyword: str) -> str:
        """The value as a person reads it, whether the file holds it as text or as binary numbers."""
        raw, code = self._element(keyword), _BINARY.get(keyword)
        if code is None or not isinstance(raw, bytes):
            return self.text(keyword)
        order = "<" if getattr(self._elements[tag(keyword)], "is_little_endian", True) else ">"
        count = len(raw) // struct.calcsize(code)
        values = struct.unpack_from(f"{order}{count}{code}", raw)
        return "\\".join(f"{value:g}" for value in values)

    def items(self, keyword: str) -> Iterator[Elements]:
        """The items of a sequence."""
        return (Elements(item) for item in self._dataset.get(keyword) or ())

    def first(self, keyword: str) -> Elements:
        """The first item of a sequence; without elements where there is none."""
        return next(self.items(keyword), Elements(Dataset()))

    def overlaid(self, wanted: Container[int], *groups: Elements) -> Elements:
        """These elements with the wanted ones of each group's macros laid over them, the last group on top.

        A functional group (PS3.3 C.7.6.16.2) is a data set of sequences with one item each; private sequences, which
        some vendors fill with positions of their own, are left out.
        """
        overlay: dict[int, Element] = {}
        for group in groups:
            for macro in group._macros():
                overlay.update((number, element) for number, element in macro.items() if number in wanted)
        return Elements(self._dataset, overlay)

    def _macros(self) -> Iterator[Dataset]:
        for element in self._dataset:
            if not element.tag.is_private and element.VR == "SQ" and element.value:
                yield element.value[0]

    def _element(self, keyword: str) -> bytes | str:
        element = self._elements.get(tag(keyword))
        value = None if element is None else element.value
        if value is None or isinstance(value, bytes | str):
            return value or ""
        return str(value) if isinstance(value, int | float) else "\\".join(map(str, value))


def tag(keyword: str) -> int:
    """The number of a keyword of PS3.6."""
    number = _TAGS.get(keyword)
    if number is None:
        number = _TAGS[keyword] = int(tag_for_keyword(keyword) or 0)
    return number
