from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest
from typer.testing import CliRunner

from tests.cli.fakes import FakeModels
from tomolens.cli.main import app

Run = Callable[..., click.testing.Result]


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """A suite that a shell started in the background ignores SIGINT, and so would every process that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
