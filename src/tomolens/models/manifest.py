"""The manifest of a run of an imported model: what ran, where, on what, for how long."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tomolens.core.run import Run
from tomolens.models.detector import peak_memory_mb

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard
    from tomolens.core.volume import Volume
    from tomolens.models.inference import Backend


@dataclass
class Manifest:
    """Begins with the work, is told where each stage ends, and becomes a `Run`."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _laps: dict[str, float] = field(default_factory=dict)
    _first: float = field(default_factory=time.perf_counter)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """The time since the last lap was spent on this stage."""
        now = time.perf_counter()
        self._laps[stage], self._last = now - self._last, now

    def run(
        self,
        card: ModelCard,
        weights_sha256: str,
        volumes: Sequence[Volume],
        backend: Backend,
        notes: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Run:
        """The finished manifest; of several volumes the first gives series and history, all give the source."""
        first = volumes[0] if volumes else None
        return Run(
            model=card.name,
            model_version=card.version,
            weights_sha256=weights_sha256,
            options=dict(options or {}),
            series_uid=first.series.uid if first and first.series else "",
            source=", ".join(volume.name for volume in volumes),
            history=first.history if first else (),
            device=str(backend.device),
            precision=backend.precision,
            started=self.started.isoformat(timespec="seconds"),
            seconds={**self._laps, "total": time.perf_counter() - self._first},
            peak_memory_mb=peak_memory_mb(),
            versions={name: version(name) for name in ("tomolens", "torch", "monai", "numpy", "scipy")}
            | {"python": platform.python_version()},
            notes=(*notes, *([card.origin] if card.origin else [])),
        )
