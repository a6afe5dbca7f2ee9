"""The rules of the house, as ARCHITECTURE.md states them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from statistics import median

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tomolens
from tomolens.core.card import ModelCard

REPOSITORY = Path(__file__).parents[1]
PACKAGE = Path(str(resources.files(tomolens)))
MODULES = sorted(PACKAGE.rglob("*.py"))
BUNDLES = sorted(folder for folder in (PACKAGE / "models" / "bundles").glob("*") if folder.is_dir())
HEAVY = {"torch", "monai", "qtpy", "PySide6", "napari", "magicgui", "matplotlib", "pandas", "SimpleITK"}


def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), str(module))


def name(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def body_lengths() -> dict[str, int]:
    """Lines of code in each function's body, inner functions too: no signature, docstring, blank line or comment."""
    lengths = {}
    for module in MODULES:
        lines = module.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                code = lines[body[0].lineno - 1 : node.end_lineno] if body else []
                written = [line for line in code if line.strip() and not line.lstrip().startswith("#")]
                lengths[f"{name(module)}:{node.lineno} {node.name}"] = len(written)
    return lengths


def longest(lengths: dict[str, int], count: int = 12) -> str:
    return "\n".join(f"{lengths[key]:4} {key}" for key in sorted(lengths, key=lambda key: -lengths[key])[:count])


def test_functions_are_short() -> None:
    lengths = body_lengths()
    assert max(lengths.values()) <= 50, longest(lengths)
    assert median(lengths.values()) <= 6, longest(lengths)
    assert sum(length <= 30 for length in lengths.values()) >= 0.9 * len(lengths), longest(lengths)


def test_modules_are_read_in_one_sitting() -> None:
    lengths = {name(module): len(module.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert max(lengths.values()) <= 400, longest(lengths, 5)


@pytest.mark.parametrize("banned", ["utils", "util", "helpers", "helper", "common", "base", "manager", "misc"])
def test_no_module_is_named_for_nothing_in_particular(banned: str) -> None:
    parts = {part for module in MODULES for part in module.relative_to(PACKAGE).with_suffix("").parts}
    assert not [part for part in parts if banned in part.strip("_").split("_")]


def test_nothing_prints_but_the_command_line() -> None:
    prints = [
        f"{name(module)}:{node.lineno}"
        for module in MODULES
        if PACKAGE / "cli" not in module.parents
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints


def test_no_user_is_answered_by_an_assert() -> None:
    asserts = [
        f"{name(m)}:{node.lineno}" for m in MODULES for node in ast.walk(tree(m)) if isinstance(node, ast.Assert)
    ]
    assert not asserts


def test_the_tests_are_laid_out_as_the_package_is() -> None:
    folders = {folder.name for folder in (REPOSITORY / "tests").iterdir() if folder.is_dir()} - {"__pycache__"}
    assert folders <= {folder.name for folder in PACKAGE.iterdir() if folder.is_dir()}


@pytest.mark.parametrize("script", ["demo", "lint", "screen", "test", "venv", "../.ci/run"])
def test_a_script_stops_at_its_first_failure_and_says_what_it_does(script: str) -> None:
    file = REPOSITORY / "scripts" / script
    first, second, *rest = file.read_text(encoding="utf-8").splitlines()
    assert first == "#!/usr/bin/env bash"
    assert second.startswith("# ")
    assert "set -euo pipefail" in rest


def loaded_by(statements: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after some statements."""
    code = f"import sys; {statements}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_by("import tomolens; dir(tomolens)")


def test_the_types_of_the_core_load_nothing_heavy() -> None:
    names = ("Volume", "Detection", "Segmentation", "Reconstruction", "detect_nodules", "segment", "reconstruct")
    assert not HEAVY & loaded_by(f"import tomolens; {'; '.join(f'tomolens.{name}' for name in names)}")


def test_reading_files_loads_neither_torch_nor_qt() -> None:
    loaded = loaded_by("import tomolens; tomolens.find_series, tomolens.read_volume, tomolens.write_detection")
    assert not {"torch", "monai", "napari", "qtpy"} & loaded


def test_the_command_line_opens_without_torch_or_qt() -> None:
    assert not {"torch", "monai", "napari", "qtpy"} & loaded_by("import tomolens.cli.main")


def test_at_most_26_names_are_public_and_each_is_documented() -> None:
    assert 12 <= len(tomolens.__all__) <= 26
    undocumented = [name for name in tomolens.__all__ if not (getattr(tomolens, name).__doc__ or "").strip()]
    assert not undocumented


def test_public_names_are_said_once_for_users_and_once_for_type_checkers() -> None:
    shown = re.findall(r"^    from (tomolens\.\S+) import (\w+) as \w+$", (PACKAGE / "__init__.py").read_text(), re.M)
    assert {name: home for home, name in shown} == {name: f"tomolens.{home}" for name, home in tomolens._HOME.items()}
    assert sorted(tomolens._HOME) == tomolens.__all__
    for home, public in shown:
        assert getattr(tomolens, public).__module__ == home


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'find_tumours'"):
        tomolens.find_tumours  # noqa: B018 - the look-up is what is tested


def test_at_least_one_model_is_shipped() -> None:
    assert BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_model_is_a_complete_folder_of_data(bundle: Path) -> None:
    for part in ("configs/metadata.json", "models/model.safetensors", "docs/README.md", "LICENSE"):
        assert (bundle / part).is_file(), f"{bundle.name} lacks {part}"
        assert (bundle / part).stat().st_size > 0
    suffixes = {file.suffix for file in bundle.rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".csv", ".png", ""}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_models_card_can_be_read_and_shows_how_it_was_measured(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    card = ModelCard.from_metadata(metadata, bundle.name)
    assert card.name == bundle.name
    assert card.figures, "no model without measured figures"
    assert card.trained_on.strip()
    assert 0 < card.default_min_score < 1 or card.task != "detection"


PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PINS = {
    canonicalize_name(pin.name): pin
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for pin in [Requirement(line)]
}
NEEDED = [
    *PROJECT["project"]["dependencies"],
    *(line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra),
    *PROJECT["build-system"]["requires"],
]


@pytest.mark.parametrize("line", NEEDED)
def test_whatever_is_installed_has_one_pinned_version_that_will_do(line: str) -> None:
    needed = Requirement(line)
    (pin,) = PINS[canonicalize_name(needed.name)].specifier
    assert pin.operator == "=="
    assert needed.specifier.contains(pin.version)


def test_pins_are_plain_versions_that_any_registry_can_serve() -> None:
    assert not [pin for pin in PINS.values() if pin.url or "+" in str(pin.specifier)]


def test_a_new_install_has_the_version_that_the_changelog_opens_with() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", changelog, re.M)
    assert versions[0] == PROJECT["project"]["version"]
