"""Everything needed to repeat a piece of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Run:
    """The manifest of one run: what was done to what, with what, where and how long it took.

    Parameters
    ----------
    model, model_version
        The model's name and version.
    weights_sha256
        Hash of the weights file, so that a result can be traced to exactly these weights.
    options
        The checked options, as plain values.
    series_uid, source, history
        What was read: SeriesInstanceUID (empty where there is none), a name of the source, and what had been done to
        the voxels before the run.
    device, precision
        Where and how the network ran, e.g. ``cpu``, ``bfloat16``.
    started
        UTC time, ISO 8601.
    seconds
        Wall seconds by stage, and ``total``.
    peak_memory_mb
        Largest resident memory of the process so far, in MiB; None where the system does not tell.
    versions
        Python, Tomolens and the libraries that can change a number.
    notes
        What the reader should know of this run, e.g. that it fell back to the CPU.
    """

    model: str
    model_version: str
    weights_sha256: str
    options: Mapping[str, Any] = field(default_factory=dict)
    series_uid: str = ""
    source: str = ""
    history: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "float32"
    started: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """The inverse of `to_dict`; keys that this version does not know are passed over.

        Raises
        ------
        TypeError
            If a value is missing or not of its field's kind.
        """
        known = {f.name: _checked(f.name, str(f.type), values[f.name]) for f in fields(cls) if f.name in values}
        return cls(**known)


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "tuple[str, ...]": (list, tuple),
    "Mapping[str, Any]": (Mapping,),
    "Mapping[str, float]": (Mapping,),
    "Mapping[str, str]": (Mapping,),
    "float | None": (float, int, type(None)),
}
"""What may stand in JSON for each kind of field."""


def _checked(name: str, kind: str, value: Any) -> Any:
    lines: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else ()
    if not isinstance(value, _KINDS[kind]) or not all(isinstance(line, str) for line in lines):
        raise TypeError(f"{name} is {kind}, not {value!r}.")
    return lines if isinstance(value, list | tuple) else value
