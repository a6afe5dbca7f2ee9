"""A bundle's postprocessing as a recipe: how channels become labels; what cannot be mapped is refused."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown
from tomolens.models.import_transforms import (
    ANSWER,
    IMAGE,
    MOVES_NOTHING,
    Transform,
    all_transforms,
    shown,
    transforms_of,
)

_LARGEST_THRESHOLD = 1e6
_BOXES = ("ClipBoxToImage", "AffineBoxToWorldCoordinate", "ConvertBoxMode", *MOVES_NOTHING)


@dataclass
class _Reading:
    """What the transforms said so far; ``given`` are their arguments by name."""

    config: Config
    channels: int
    found: dict[str, Any] = field(default_factory=lambda: {"activation": "none", "back": "linear"})
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def answer(config: Config, channels: int) -> tuple[dict[str, Any], list[str]]:
    """How the channels are read, and what the card should say of it.

    Activation, argmax or threshold, before or after going back to the scan's grid; of ``channels`` channels.

    Raises
    ------
    ModelError
        With the place of what cannot be mapped.
    """
    reading = _Reading(config, channels)
    for transform in transforms_of(config, "postprocessing", ANSWER):
        if transform.disabled or transform.name in MOVES_NOTHING:
            continue
        if transform.name not in _READINGS:
            raise transform.refused(f"this transform is not mapped; known are {', '.join(_READINGS)}")
        if transform.name in reading.given:
            raise transform.refused("it stands there twice; one is mapped")
        reading.given[transform.name] = {}
        _READINGS[transform.name](transform, reading)
    return reading.found, reading.notes


def check_boxes(config: Config) -> None:
    """Refuse a detector whose boxes are changed by more than clipping them to the image and writing them otherwise.

    Raises
    ------
    ModelError
        With the place.
    """
    for transform in all_transforms(config, "postprocessing"):
        if not transform.disabled and transform.name not in _BOXES:
            raise transform.refused(f"this transform is not mapped for boxes; known are {', '.join(_BOXES[:3])}")


def made_images(config: Config) -> dict[str, Any]:
    """How a generator's images are read, which is by a sigmoid or as they are, of numbers drawn from 0 to 1.

    Raises
    ------
    ModelError
        With the place of what says otherwise.
    """
    dataset = config.raw("dataset") if "dataset" in config else None
    drawn = dataset.get("data") if isinstance(dataset, dict) else None
    if drawn is not None and "torch.rand(" not in str(drawn):
        raise ModelError(f"{config.where('dataset', 'data')}: {drawn!r:.120} is not mapped; torch.rand is.")
    read, _ = answer(config, 0)
    if set(read) != {"activation", "back"} or read["activation"] == "softmax":
        raise ModelError(f"{config.where('postprocessing')}: {read} is not mapped for made images; a sigmoid is.")
    return read


def _activation(transform: Transform, reading: _Reading) -> None:
    given = transform.arguments(ANSWER, "sigmoid", "softmax", "other")
    softmax, sigmoid = transform.flag(given, "softmax"), transform.flag(given, "sigmoid")
    if given.get("other") is not None or (softmax and sigmoid):
        raise transform.refused("either softmax or sigmoid is mapped, and no other")
    if "decision" in reading.found or ("Invert" in reading.given and reading.found["back"] == "linear"):
        raise transform.refused("it stands after AsDiscrete or a linear Invert; before them it is mapped")
    if softmax and reading.channels == 1:
        raise transform.refused("softmax over a single channel is always 1; nothing can be read from that")
    reading.found["activation"] = "softmax" if softmax else "sigmoid" if sigmoid else "none"


def _decision(transform: Transform, reading: _Reading) -> None:
    given = reading.given["AsDiscrete"] = transform.arguments(ANSWER, "argmax", "threshold", "to_onehot")
    argmax = transform.flag(given, "argmax")
    threshold: Any = given.get("threshold")
    if argmax and threshold is not None:
        raise transform.refused(f"argmax with the threshold {shown(threshold)} on its labels is not mapped")
    if argmax and reading.channels == 1:
        raise transform.refused("argmax over a single channel is always 0; nothing can be read from that")
    if argmax:
        reading.found["decision"] = "argmax"
        return
    if type(threshold) not in (int, float) or abs(threshold) > _LARGEST_THRESHOLD:
        raise transform.refused(f"argmax or a threshold is needed, not {shown(threshold)}")
    if given.get("to_onehot") is not None:
        raise transform.refused(f"to_onehot {shown(given['to_onehot'])} before a threshold is not mapped")
    reading.found |= {"decision": "threshold", "threshold": float(threshold)}


def _back(transform: Transform, reading: _Reading) -> None:
    given = transform.arguments(
        ANSWER,
        "nearest_interp",
        "orig_keys",
        "post_func",
        ignored=("transform", "to_tensor", "device", "orig_meta_keys"),
    )
    if given.get("post_func") is not None:
        raise transform.refused(f"post_func {shown(given['post_func'])} is not mapped")
    if given.get("orig_keys") not in (IMAGE, [IMAGE]):
        raise transform.refused(f"orig_keys is {shown(given.get('orig_keys'))}; the transforms of {IMAGE!r} are undone")
    if "transform" not in transform.values or transform.values["transform"] != reading.config.at("preprocessing"):
        raise transform.refused("what it undoes is not the bundle's preprocessing")
    is_nearest, is_decided = transform.flag(given, "nearest_interp", True), "decision" in reading.found
    reading.found["back"] = "nearest" if is_nearest or is_decided else "linear"
    if is_decided and not is_nearest:
        reading.notes.append(
            "The bundle interpolates the numbers of its labels (Invert with nearest_interp false after AsDiscrete), "
            "which makes labels of none; the nearest label is taken."
        )
    if "largest" in reading.found:
        reading.found["largest_first"] = True


def _largest(transform: Transform, reading: _Reading) -> None:
    given = transform.arguments(ANSWER, "applied_labels", "independent", "num_components", "connectivity", "is_onehot")
    if reading.found.get("decision") != "argmax":
        raise transform.refused("it is mapped after argmax alone")
    labels = _labels(transform, given.get("applied_labels"), reading.channels)
    if given.get("num_components", 1) != 1 or (len(labels) > 1 and not transform.flag(given, "independent", True)):
        raise transform.refused("only the single largest part of each label, independent of the others, is mapped")
    if given.get("connectivity") not in (None, 3):
        raise transform.refused(f"connectivity {shown(given['connectivity'])} is not mapped; None and 3 are")
    is_onehot = reading.given["AsDiscrete"].get("to_onehot") is not None
    if transform.flag(given, "is_onehot", is_onehot) != is_onehot:
        raise transform.refused(f"is_onehot is {given['is_onehot']}, and AsDiscrete says otherwise")
    reading.found["largest"] = labels


def _labels(transform: Transform, applied: Any, channels: int) -> list[int]:
    """The labels that are treated; the background's parts, 0, are 0 whether kept or not."""
    labels = list(range(channels)) if applied is None else applied if isinstance(applied, list) else [applied]
    if not all(type(label) is int and 0 <= label < channels for label in labels):
        raise transform.refused(f"applied_labels {shown(applied)} are not labels from 0 to {channels - 1}")
    return [label for label in labels if label]


def _paint(transform: Transform, reading: _Reading) -> None:
    """Regions painted over each other: nested ``torch.where(x[[channel]] > 0, label, ...)``, read, not run."""
    given = transform.arguments(ANSWER, "overwrite", ignored=("func", "inv_func", "track_meta"))
    function = transform.values.get("func")
    text = function.expression.removeprefix("$") if isinstance(function, Unknown) else ""
    try:
        surest_first = list(_regions(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        surest_first = []
    is_read = surest_first and reading.found.get("decision") == "threshold"
    if not is_read or not transform.flag(given, "overwrite", True):
        raise transform.refused(f"the function {shown(function)} is not evaluated and not one that is known")
    reading.found["paint"] = surest_first[::-1]


def _regions(function: ast.expr) -> Iterator[tuple[int, int]]:
    match function:
        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)], defaults=[], vararg=None), body=body):
            yield from _painted(body, name)
        case _:
            raise ValueError("no function of one channel stack")


def _painted(node: ast.expr, stack: str) -> Iterator[tuple[int, int]]:
    match node:
        case ast.Constant(value=0):
            return
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
            args=[
                ast.Compare(
                    left=ast.Subscript(value=ast.Name(id=name), slice=chosen),
                    ops=[ast.Gt()],
                    comparators=[ast.Constant(value=0)],
                ),
                ast.Constant(value=int() as label),
                otherwise,
            ],
            keywords=[],
        ) if name == stack:
            yield _channel(ast.literal_eval(chosen)), int(label)
            yield from _painted(otherwise, stack)
        case _:
            raise ValueError("no painting")


def _channel(chosen: Any) -> int:
    channel = chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen
    if type(channel) is not int:
        raise ValueError("no channel")
    return channel


_READINGS: Mapping[str, Callable[[Transform, _Reading], None]] = {
    "Activations": _activation,
    "AsDiscrete": _decision,
    "Invert": _back,
    "KeepLargestConnectedComponent": _largest,
    "Lambda": _paint,
}
