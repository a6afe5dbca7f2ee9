from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
from typer.testing import CliRunner

from tests.cli.fakes import FakeModels
from tomolens.cli.main import app

Run = Callable[..., click.testing.Result]


@pytest.fixture
def fake_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeModels:
    """A detector without a network in the place of the shipped one."""
    models = FakeModels(tmp_path / "model")
    models.install(monkeypatch)
    return models


@pytest.fixture
def tomolens() -> Run:
    """Call the command line and get what it printed."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
