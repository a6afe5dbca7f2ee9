"""Results as JSON that says what it is: a schema with its version, the grid, the run."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tomolens.core.errors import ReadError, TomolensError
from tomolens.core.grid import Grid
from tomolens.core.run import Run


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write UTF-8 JSON that keeps every number exactly; a number that is none is refused with a `ValueError`."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, schema: str, newest: int) -> dict[str, Any]:
    """Read JSON of a known schema, e.g. ``tomolens/findings``, of version 1 to ``newest``.

    Raises
    ------
    ReadError
        If there is no such file or it is another; the message names it.
    """
    kind = schema.rpartition("/")[2]
    content = _read(path, kind)
    if content.get("schema") != schema:
        raise ReadError(f"{path} is not a {kind} file: its schema is {content.get('schema')!r}, not {schema!r}.")
    version = content.get("schema_version")
    if type(version) is not int or not 1 <= version <= newest:
        raise ReadError(f"{path} has schema version {version!r}; this Tomolens reads 1 to {newest}.")
    return content


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as wrong:
        raise ReadError(f"{path} cannot be read: {wrong.strerror}.") from wrong
    except ValueError as wrong:
        raise ReadError(f"{path} is not JSON: {wrong}.") from wrong
    except RecursionError as wrong:
        raise ReadError(f"{path} is nested too deeply to be a {kind} file.") from wrong
    return content if isinstance(content, dict) else {}


@contextmanager
def values_of(path: Path) -> Generator[None]:
    """Turn whatever a missing or impossible value causes into a `ReadError` that names the file."""
    try:
        yield
    except ReadError:
        raise
    except KeyError as missing:
        raise ReadError(f"{path} lacks the key {missing}.") from missing
    except (TypeError, ValueError, AttributeError, OverflowError, TomolensError) as wrong:
        raise ReadError(f"{path} holds a value that cannot be right: {wrong}") from wrong


def grid_to_json(grid: Grid) -> dict[str, Any]:
    """Shape, affine (voxel (k, j, i) to LPS mm) and frame of reference, all exact."""
    return {"shape": grid.shape, "affine": grid.affine.tolist(), "frame_of_reference": grid.frame_of_reference}


def grid_from_json(grid: dict[str, Any]) -> Grid:
    """The inverse of `grid_to_json`."""
    return Grid(tuple(grid["shape"]), np.asarray(grid["affine"], np.float64), grid["frame_of_reference"])


def run_from_json(content: dict[str, Any]) -> Run:
    """The run of a result.

    Raises
    ------
    ValueError
        If it was made of another series than the result says.
    """
    run = Run.from_dict(content["run"])
    if content["series_uid"] != run.series_uid:
        raise ValueError(f"series_uid is {content['series_uid']!r}, but {run.series_uid!r} in the run.")
    return run
