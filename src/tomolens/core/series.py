"""What a scan of the headers alone knows of a series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import overload


@dataclass(frozen=True)
class Problem:
    """Something in a series that a reader of the result should know, or that keeps it from being one volume.

    ``kind`` is a short stable word (``missing-slice``, ``gantry-tilt``, ``duplicate-instances``, ...); ``refused`` says
    whether `read_volume` refuses the series because of it when nothing else is asked for.
    """

    kind: str
    message: str
    refused: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Series:
    """What the headers of one series say; no pixel has been read.

    A study is the series that share ``study_uid``. One folder may give several `Series` with the same ``uid`` where
    a series holds more than one stack (another orientation, size or frame of reference): ``part`` numbers them from 1,
    and is 0 where the series is one stack.

    Slice k of the volume is frame ``frames[k]`` (from 0) of ``files[k]``; a file of several frames stands there once
    for each. ``copies`` are further (file, frame) pairs that repeat an instance among them.
    """

    uid: str
    study_uid: str
    modality: str
    files: tuple[Path, ...] = field(repr=False)
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    description: str = ""
    number: int | None = None
    part: int = 0
    orientation: str = ""
    frame_of_reference: str | None = None
    kernel: str = ""
    manufacturer: str = ""
    patient_id: str = field(default="", repr=False)
    study_date: str = ""
    transfer_syntax: str = ""
    problems: tuple[Problem, ...] = ()
    frames: tuple[int, ...] = field(default=(), repr=False)
    copies: tuple[tuple[Path, int], ...] = field(default=(), repr=False)
    thickness_mm: float | None = None

    @property
    def refused(self) -> bool:
        """Whether `read_volume` refuses this series unless told how to treat its problem."""
        return any(problem.refused for problem in self.problems)

    @property
    def label(self) -> str:
        """A line for a list: number, description, modality, size and spacing."""
        slices, rows, columns = self.shape
        number = "" if self.number is None else f"{self.number}  "
        name = self.description or "(no description)"
        part = f" part {self.part}" if self.part else ""
        spacing = "" if self.spacing_mm is None else " at {2:.2f} x {1:.2f} x {0:.2f} mm".format(*self.spacing_mm)
        return f"{number}{name}{part}: {self.modality}, {columns} x {rows} x {slices}{spacing}"


@dataclass(frozen=True)
class PassedOver:
    """A file that is in no series, or a folder that cannot be read, and why.

    ``harmless`` says that it never was a slice: a report, a segmentation, a note beside the images.
    """

    path: Path
    reason: str
    harmless: bool = False


@dataclass(frozen=True)
class FolderScan(Sequence[Series]):
    """All series below a folder, in the order of study, number and description, and the files passed over."""

    root: Path
    series: tuple[Series, ...]
    passed_over: tuple[PassedOver, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Series: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Series, ...]: ...
    def __getitem__(self, index: int | slice) -> Series | tuple[Series, ...]:
        return self.series[index]

    def __len__(self) -> int:
        return len(self.series)

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{n}</td><td>{escape(s.label)}</td><td>{escape('; '.join(map(str, s.problems)))}</td></tr>"
            for n, s in enumerate(self.series)
        )
        head = "<tr><th></th><th>series</th><th>problems</th></tr>"
        return f"<table>{head}{rows}</table><p>{len(self.passed_over)} files passed over</p>"
