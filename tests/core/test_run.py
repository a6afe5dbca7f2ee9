from __future__ import annotations

import json
from typing import Any

import pytest

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


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert Run.from_dict({**RUN.to_dict(), "carbon_g": 0.2}) == RUN


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 3),
        ("history", "abc"),
        ("notes", [1]),
        ("options", "none"),
        ("seconds", []),
        ("peak_memory_mb", "many"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} is "):
        Run.from_dict({**RUN.to_dict(), name: value})


def test_a_manifest_without_its_model_is_refused() -> None:
    with pytest.raises(TypeError, match="model"):
        Run.from_dict({"model_version": "1"})
