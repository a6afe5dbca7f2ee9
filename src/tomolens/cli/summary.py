"""What one call did with each series, as ``summary.csv`` and ``summary.json``."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from tomolens.io.atomic import whole_file

CSV_NAME = "summary.csv"
JSON_NAME = "summary.json"
SCHEMA = "tomolens/summary"
SCHEMA_VERSION = 1


class Status(StrEnum):
    """What became of a series."""

    DONE = "done"
    """Read, and its result written."""
    SKIPPED = "skipped"
    """Finished by an earlier call with the same model and options."""
    REFUSED = "refused"
    """The model is not made for it: not a CT, a scout, too coarse, no lungs."""
    FAILED = "failed"
    """It should have been read and could not be."""


@dataclass(frozen=True)
class Row:
    """One series in the summary. ``seconds`` is None where nothing was run, ``count`` where there is no result."""

    series: str
    series_uid: str
    part: int
    description: str
    modality: str
    status: Status
    count: int | None = None
    seconds: float | None = None
    message: str = ""


@dataclass
class Summary:
    """The rows of one call, gathered as they come. ``counted`` says of what a row holds the count, e.g. findings."""

    counted: str
    rows: list[Row] = field(default_factory=list)
    found: int = 0
    passed_over: int = 0
    kspace: bool = False
    """Whether k-space is among what was passed over."""
    interrupted: bool = True

    def counts(self) -> dict[str, int]:
        """How many series of each status there are, every status named."""
        counted = Counter(row.status for row in self.rows)
        return {status.value: counted[status] for status in Status}

    @property
    def failed(self) -> bool:
        """Whether any series failed."""
        return any(row.status == Status.FAILED for row in self.rows)

    def of(self, status: Status) -> Sequence[Row]:
        """The rows of one status."""
        return [row for row in self.rows if row.status == status]

    def write(self, out: Path) -> None:
        """Write ``summary.csv`` and ``summary.json`` into the output folder."""
        with whole_file(out / CSV_NAME) as path, path.open("w", newline="", encoding="utf-8") as file:
            columns = [self.counted if column.name == "count" else column.name for column in fields(Row)]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._plain(row) for row in self.rows)
        with whole_file(out / JSON_NAME) as path:
            path.write_text(json.dumps(self._to_json(), indent=2) + "\n", encoding="utf-8")

    def _to_json(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tomolens": version("tomolens"),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "interrupted": self.interrupted,
            "series_found": self.found,
            "files_passed_over": self.passed_over,
            "counts": self.counts(),
            "series": [self._plain(row) for row in self.rows],
        }

    def _plain(self, row: Row) -> dict[str, object]:
        """A row as plain values; the count stands under the name of what is counted."""
        return {self.counted if name == "count" else name: value for name, value in asdict(row).items()}
