"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tomolens", deadline=None)  # a busy machine is not a wrong answer
settings.load_profile("tomolens")


def _shared_data() -> Path:
    """The folder of real test data: ``$TOMOLENS_TEST_DATA/data``, else ``../shared/data`` beside the repository."""
    root = os.environ.get("TOMOLENS_TEST_DATA") or Path(__file__).parents[2] / "shared"
    return Path(root) / "data"


@pytest.fixture(autouse=True)
def _no_models_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported models of whoever runs the tests are neither read nor touched."""
    monkeypatch.setenv("TOMOLENS_MODELS", str(tmp_path_factory.getbasetemp() / "no-models"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT and MR with free licences; the test is skipped where they are not at hand."""
    folder = _shared_data()
    if not folder.is_dir():
        pytest.skip(f"needs the real test data in {folder} (set TOMOLENS_TEST_DATA to the folder that holds data/)")
    return folder
