"""`tomolens train`: what it refuses and how it says so; the training itself is tested in tests/training."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from tomolens.cli.main import app

RUN = CliRunner()


def test_data_that_hold_nothing_are_refused_in_one_line(tmp_path: Path) -> None:
    result = RUN.invoke(
        app, ["train", "detector", "--data", str(tmp_path), "-o", str(tmp_path / "run"), "--phantoms", "0"]
    )
    assert result.exit_code == 2
    assert "holds 0 lungs and 0 nodules" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["train", "detector", "--data", str(tmp_path / "absent"), "-o", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "does not exist" in result.output


def test_publishing_a_folder_without_a_run_says_what_is_missing(tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    card.write_text(
        '{"name": "a", "version": "1", "summary": "", "intended_use": "", "trained_on": "", "licence": "",'
        ' "default_min_score": 0.5, "figures": {}}'
    )
    result = RUN.invoke(app, ["train", "publish", str(tmp_path / "run"), str(card), "-o", str(tmp_path / "model")])
    assert result.exit_code == 2
    assert "checkpoint.pt" in result.output
