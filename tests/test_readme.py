"""What the README says is so: its commands exist, its Python runs, its table of models is that of the cards."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from docs.model_table import with_table
from tomolens.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """What stands between the fences of those languages."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    return [content for language, content in fences if language in languages]


def commands(page: str) -> list[list[str]]:
    """Each line of each shell block, as words."""
    lines = [line for block in blocks(page, "bash", "powershell") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


TOMOLENS = [words for words in commands("README.md") if words[0] == "tomolens"]
SCRIPTS = sorted({words[0] for page in PAGES for words in commands(page) if words[0].startswith("scripts/")})


def test_the_first_code_block_is_two_commands() -> None:
    first = README[README.index("```") :].split("```")[1].splitlines()[1:]
    assert [line.split("#")[0].strip() for line in first] == ["scripts/demo", "scripts/test"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_is_named_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("words", TOMOLENS, ids=" ".join)
def test_a_command_that_is_shown_exists_with_its_options(words: list[str]) -> None:
    shown, rest = typer.main.get_command(app), words[1:]
    while rest and hasattr(shown, "commands"):  # `tomolens models` alone lists them
        shown = shown.commands[rest.pop(0)]
    known = {option for parameter in shown.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


def test_every_door_is_shown() -> None:
    assert {words[1] for words in TOMOLENS} >= {"detect", "info", "models"}
    assert blocks("README.md", "python")
    assert ["napari"] in commands("README.md")


@pytest.mark.parametrize("block", blocks("README.md", "python"))
def test_the_python_that_is_shown_runs(
    block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})
    assert " mm at (" in capsys.readouterr().out


def test_the_table_of_models_is_what_the_cards_say() -> None:
    assert with_table(README) == README, "run: python docs/model_table.py"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_link_and_picture_inside_the_project_is_there(page: str) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:core|io|models|cli|training|reports|pipelines|napari_plugin|benchmarks|tests|docs)/[\w./]*)`", text
    )
    package = ROOT / "src" / "tomolens"
    homes = (ROOT, package, *package.glob("models/bundles/*"))
    assert not [path for path in named if not any((home / path).exists() for home in homes)]


def test_the_extras_that_are_shown_are_those_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    shown = {
        extra
        for page in PAGES
        for names in re.findall(r"\.\[([\w,]+)\]", (ROOT / page).read_text())
        for extra in names.split(",")
    }
    assert shown <= set(extras)
