"""What a bundle's engine runs: its own network, transforms and inferer, and nothing besides that changes an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown
from tomolens.models.import_transforms import IMAGE, monais, shown

_EVALUATOR = "SupervisedEvaluator"
_DETECTION_EVALUATOR = "scripts.evaluator.DetectionEvaluator"
"""The zoo's own: MONAI's evaluator for batches of boxes."""
_DETECTION_SAVER = "scripts.detection_saver.DetectionSaver"
"""The zoo's own: writes the boxes after the bundle's ``postprocessing``, which its `_SAVED` says."""
_SAVED = "$lambdax:[@postprocessing({**xx['pred'],'image':xx['image']})forxxinx]"
_HANDLERS = (
    *("CheckpointLoader", "CheckpointSaver", "StatsHandler", "TensorBoardStatsHandler", "TensorBoardImageHandler"),
    *("LogfileHandler", "MLFlowHandler", "GarbageCollector", "ClassificationSaver", "MetricsSaver"),
    *("IgniteMetricHandler", "MeanDice", "MeanIoUHandler", "ConfusionMatrix", "HausdorffDistance", "SurfaceDistance"),
    *("ROCAUC", "AveragePrecision", "MeanAbsoluteError", "MeanSquaredError"),
)
"""MONAI's handlers that load the weights, write, count or measure, and leave the answer alone."""
_WIRES = {"network": "network", "inferer": "inferer", "postprocessing": "postprocessing", "val_handlers": "handlers"}
"""Parts of an evaluator, and the keys of a bundle that they are."""
_PREPARE_BATCH = ("default_prepare_batch", "PrepareBatchDefault")
_NO_EFFECT = (
    "_desc_ _mode_ _disabled_ device val_data_loader epoch_length non_blocking amp amp_kwargs "
    "key_val_metric additional_metrics metric_cmp_fn event_names event_to_attr compile compile_kwargs"
).split()
"""Arguments of an evaluator that say what it reads from, where and how fast it runs and what it measures."""
_LINES = ("initialize", "run", "finalize", "evaluating", "inferring", "inference")
"""Keys under which MONAI and the zoo keep the lines that are run."""
_KNOWN_LINES = re.compile(
    r"\$@evaluator\.run\(\)"
    r"|\$@checkpointloader\(@evaluator\)( if @[\w#]+ else None)?"
    r"|\$monai\.utils\.set_determinism\([\w=, ]*\)"
    r"|\$setattr\(torch\.backends\.cudnn, ?(['\"])(benchmark|deterministic)\2, ?(True|False)\)"
    r"|\$@\w+\.close\(\)"
)


def check_wiring(config: Config, task: str) -> None:
    """Refuse a bundle that runs anything else than what is read of it: network, transforms, inferer and weights.

    Raises
    ------
    ModelError
        With the place, the value and what is taken.
    """
    _check_network(config)
    dataset, evaluator = _values(config, "dataset", ("data",)), _values(config, "evaluator", _NO_EFFECT)
    if isinstance(dataset, dict) and task != "generation":  # whose numbers are drawn, not read
        _check_wire(config, ("dataset", "transform"), dataset.get("transform"), "preprocessing")
    _check_handlers(config, task)
    if evaluator is not None:
        _check_evaluator(config, evaluator, task)
    for key in _LINES:
        _check_lines(config, key)


def _values(config: Config, key: str, passed_over: Sequence[str]) -> Any:
    """An object with its references followed, but for some of its values; anything else as it is read."""
    held = config.raw(key) if key in config else None
    if not isinstance(held, dict):
        return config.at(key) if key in config else None
    return {name: config.at(key, name) for name in held if name not in passed_over}


def _check_network(config: Config) -> None:
    if "network" not in config or "network_def" not in config:
        return
    network = config.at("network")
    if network != config.at("network_def"):
        raise ModelError(
            f"{config.where('network')}: {shown(network)} is not the network of network_def, whose weights are read; "
            "@network_def is taken, with or without .to(...)."
        )


def _check_wire(config: Config, place: tuple[str, str], value: Any, key: str) -> None:
    if value is not None and value != (config.at(key) if key in config else None):
        raise ModelError(f"{config.where(*place)}: it is not the bundle's {key}, which alone is read: {shown(value)}.")


def _check_handlers(config: Config, task: str) -> None:
    handlers = config.at("handlers") if "handlers" in config else None
    handlers = [] if handlers is None else handlers
    if not isinstance(handlers, list):
        raise ModelError(f"{config.where('handlers')}: a list of handlers is needed, not {shown(handlers)}.")
    for number, handler in enumerate(handlers):
        if isinstance(handler, dict) and handler.get("_disabled_") is True:
            continue
        target = str(handler.get("_target_")) if isinstance(handler, dict) else shown(handler)
        where = config.where("handlers", number)
        if task == "detection" and target == _DETECTION_SAVER:
            _check_saver(handler, where)
        elif monais(target) not in _HANDLERS:
            raise ModelError(
                f"{where}: {target} is not mapped, and may change the answer; known are those that log, measure, save "
                "or load the weights, such as StatsHandler and CheckpointLoader."
            )


def _check_saver(saver: Mapping[str, Any], where: str) -> None:
    changed = saver.get("output_transform")
    text = changed.expression if isinstance(changed, Unknown) else changed
    if text is not None and "".join(str(text).split()) != _SAVED:
        raise ModelError(f"{where}: output_transform: {shown(changed)} is more than the bundle's postprocessing.")


def _check_evaluator(config: Config, evaluator: Any, task: str) -> None:
    where = config.where("evaluator")
    if not isinstance(evaluator, dict):
        raise ModelError(f"{where}: {shown(evaluator)} is not evaluated; {_EVALUATOR} is mapped.")
    target = str(evaluator.get("_target_", _EVALUATOR))
    if monais(target) != _EVALUATOR and not (task == "detection" and target == _DETECTION_EVALUATOR):
        raise ModelError(f"{where}: {target} is not mapped, and may run the network in another way; {_EVALUATOR} is.")
    for name, value in evaluator.items():
        if name in _WIRES:
            key = "network_def" if name == "network" and "network" not in config else _WIRES[name]
            _check_wire(config, ("evaluator", name), value, key)
        elif name not in ("_target_", *_NO_EFFECT) and value is not None:
            _check_argument(config, name, value, task)


def _check_argument(config: Config, name: str, value: Any, task: str) -> None:
    where = config.where("evaluator", name)
    text = value.expression.removeprefix("$") if isinstance(value, Unknown) else value
    text = str(text.get("_target_") if isinstance(text, dict) else text)
    if name == "prepare_batch":
        if task != "generation" and monais(text) not in _PREPARE_BATCH:
            raise ModelError(
                f"{where}: {shown(value)} is not evaluated, and may give the network something else than {IMAGE!r}."
            )
        return
    is_usual = {
        "mode": text.rpartition(".")[2] in ("eval", "EVAL"),
        "decollate": value is True,
        "to_kwargs": value == {},
        "_requires_": task == "detection" and config.raw("evaluator", name) == "@detector_ops",  # its calls are read
    }
    if not is_usual.get(name, False):
        raise ModelError(f"{where}: {shown(value)} is not mapped, and may change what the network answers.")


def _check_lines(config: Config, key: str) -> None:
    """Refuse lines that do more than to load the weights, set up torch and start the evaluator."""
    lines = config.raw(key) if key in config else None
    for line in lines if isinstance(lines, list) else [] if lines is None else [lines]:
        if not isinstance(line, str) or not _KNOWN_LINES.fullmatch(line.strip()):
            raise ModelError(
                f"{config.where(key)}: {shown(line)} is not run, and may do something else than what is read; known "
                "are $@evaluator.run(), the checkpointloader's call, set_determinism and settings of cudnn."
            )
