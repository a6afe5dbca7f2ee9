from __future__ import annotations

import json

from tomolens.core.run import Run

RUN = Run(
    model="nodules",
    model_version="0.1.0",
    weights_sha256="ab" * 32,
    options={"min_score": 0.5},
    series_uid="1.2.3",
    source="CHEST 2.0",
    history=("read 275 slices",),
    seconds={"read": 1.5, "total": 3.7},
    versions={"torch": "2.13.0"},
    notes=("ran on the CPU",),
)


def test_a_run_written_as_json_and_read_back_is_the_same_run() -> None:
    assert Run.from_dict(json.loads(json.dumps(RUN.to_dict()))) == RUN


def test_a_run_names_everything_needed_to_repeat_it() -> None:
    manifest = "model model_version weights_sha256 options series_uid history device precision started seconds versions"
    assert set(manifest.split()) <= set(RUN.to_dict())
