"""The files of an evaluation: its figures, its curve, every nodule, and a picture.

``evaluation.json`` is UTF-8 JSON, schema version 1:

======================  ============================================================================================
key                     value
======================  ============================================================================================
``schema``              ``"tomolens/evaluation"``, and ``schema_version``, 1
``title``, ``written``  What was evaluated; when, in UTC. ``tomolens``: by which version.
``inputs``              Of each file that was read its name and SHA-256; of a folder its name and the number of results.
``notes``               What the reader should know, e.g. how many scans had no mark.
``scans``               How many were read, how many of them ``without_nodules``.
``nodules``, ``marks``  How many there are; what became of the marks.
``froc``                ``rates`` (false positives a scan) with ``sensitivity``, ``low`` and ``high`` (95 %), ``cpm``,
                        ``cpm_low``, ``cpm_high``, ``bootstraps``, ``seed``.
``threshold``           None, or ``score``, ``found``, ``missed``, ``false_positives``, ``false_positives_a_scan``,
                        ``sensitivity`` and ``precision`` (each with ``low`` and ``high``, 95 % by Wilson), ``f1``,
                        ``accuracy`` (found / (found + missed + false positives): there are no true negatives).
``subgroups``           By grouping and label: ``nodules``, ``sensitivity`` at the rates, ``found`` at the threshold.
``centre_error_mm``     Median over the nodules that were found.
======================  ============================================================================================

``froc.csv`` has the curve with its band from 1/8 to 8 false positives a scan; ``nodules.csv`` one row a nodule with the
score it was found with and how far off, empty where it was missed. The JSON is written last.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomolens.core.froc import RATES
from tomolens.io.atomic import whole_file
from tomolens.io.tables import JSON_NAME as RESULT_NAME
from tomolens.reports.froc import write_froc

if TYPE_CHECKING:
    from tomolens.core.evaluation import Evaluation, Subgroup
    from tomolens.core.metrics import Counts, Share

SCHEMA = "tomolens/evaluation"
SCHEMA_VERSION = 1
JSON_NAME, CURVE_NAME, NODULES_NAME, PLOT_NAME = "evaluation.json", "froc.csv", "nodules.csv", "froc.png"


def write_evaluation(
    evaluation: Evaluation,
    folder: Path | str,
    *,
    title: str,
    inputs: Mapping[str, Path | None],
    notes: Sequence[str] = (),
) -> Path:
    """Write the four files into a folder, which is made where it is absent; each appears whole or not at all.

    Returns
    -------
    Path
        Of ``evaluation.json``.
    """
    folder = Path(folder)
    target = folder / JSON_NAME
    content = _to_json(evaluation, title, notes) | {"inputs": {n: _input(p) for n, p in inputs.items() if p}}
    write_froc(evaluation, folder / PLOT_NAME, title=title)
    _write_csv(folder / CURVE_NAME, _curve_rows(evaluation))
    _write_csv(folder / NODULES_NAME, evaluation.nodules())
    with whole_file(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return target


def _to_json(evaluation: Evaluation, title: str, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tomolens": version("tomolens"),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "title": title,
        "notes": list(notes),
        "scans": {"read": len(evaluation.scans), "without_nodules": evaluation.scans_without_nodules},
        "nodules": evaluation.curve.nodules,
        "marks": evaluation.marks(),
        "froc": _froc(evaluation),
        "threshold": _counts(evaluation.counts, evaluation.threshold) if evaluation.counts else None,
        "subgroups": _subgroups(evaluation.subgroups),
        "centre_error_mm": evaluation.centre_error_mm(),
    }


def _froc(evaluation: Evaluation) -> dict[str, Any]:
    curve, band = evaluation.curve, evaluation.band
    low, high = zip(*map(band.at, RATES), strict=True)
    return {
        "rates": list(RATES),
        "sensitivity": curve.at(RATES).tolist(),
        "low": list(low),
        "high": list(high),
        "cpm": curve.cpm,
        "cpm_low": band.cpm_low,
        "cpm_high": band.cpm_high,
        "bootstraps": band.samples,
        "seed": evaluation.seed,
    }


def _counts(counts: Counts, threshold: float | None) -> dict[str, Any]:
    return {
        "score": threshold,
        "found": counts.found,
        "missed": counts.missed,
        "false_positives": counts.false_positives,
        "false_positives_a_scan": counts.false_positives_a_scan,
        "sensitivity": _share(counts.sensitivity),
        "precision": _share(counts.precision),
        "f1": counts.f1,
        "accuracy": counts.accuracy,
    }


def _share(share: Share) -> dict[str, float | None]:
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high}


def _subgroups(subgroups: Sequence[Subgroup]) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {}
    for group in subgroups:
        figures = {"nodules": group.curve.nodules, "sensitivity": group.curve.at(RATES).tolist()}
        found = {} if group.found is None else {"found": group.found.count}
        told.setdefault(group.grouping, {})[group.label] = figures | found
    return told


def _input(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"name": path.name, "results": sum(1 for _ in path.rglob(RESULT_NAME))}
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _curve_rows(evaluation: Evaluation) -> list[dict[str, float]]:
    band = evaluation.band
    columns = (band.rates, evaluation.curve.at(band.rates), band.low, band.high)
    names = ("false_positives_a_scan", "sensitivity", "low", "high")
    return [dict(zip(names, map(float, values), strict=True)) for values in zip(*columns, strict=True)]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
