"""The notebook in docs/ runs from top to bottom and shows what it says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def _read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def shown() -> list[str]:
    """What each code cell shows after a run, as HTML where it has HTML."""
    notebook = _read()
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    return ["".join(_text(output) for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def _text(output: nbformat.NotebookNode) -> str:
    data = output.get("data", {})
    return data.get("text/html") or data.get("text/plain") or output.get("text", "")


def test_it_is_stored_without_outputs() -> None:
    assert not [cell for cell in _read().cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]


def test_the_volume_is_shown_in_three_planes(shown: list[str]) -> None:
    assert [f"<title>{plane}" in shown[1] for plane in ("axial", "coronal", "sagittal")] == [True] * 3


def test_the_findings_are_shown_with_pictures_and_as_a_table(shown: list[str]) -> None:
    assert "<circle" in shown[2]
    assert "Research use only" in shown[2]
    assert "diameter_mm" in shown[3]


def test_the_surest_finding_is_one_of_the_phantoms_nodules(shown: list[str]) -> None:
    assert shown[5].splitlines()[0].endswith("right")


def test_what_is_written_is_read_back(shown: list[str]) -> None:
    assert shown[6] == "True"
    assert "weights_sha256" in shown[7]
