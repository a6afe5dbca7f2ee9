"""A bundle's network as a name and plain arguments that `networks.build` takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import monai.networks.nets as nets
from monai.apps.detection.networks.retinanet_network import RetinaNet, resnet_fpn_feature_extractor

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, only_data
from tomolens.models.monai_networks import PREFIX, TASK_OF, checked_arguments, parameters_of

_PLACES = ("", "monai.networks.nets", "monai.apps.detection.networks.retinanet_network")
_ANCHORS = "AnchorGeneratorWithAnchorShape"
_SELECTOR = ".set_box_selector_parameters"
_WINDOWS = ".set_sliding_window_inferer"


@dataclass(frozen=True)
class MappedNetwork:
    """What a card says of a network.

    ``name`` and ``settings`` are what `networks.build` takes. ``channels_in`` images go in, ``channels_out`` channels
    or classes come out (0 for a generator's latent).
    """

    task: str
    name: str
    settings: Mapping[str, Any]
    spatial_dims: int
    channels_in: int
    channels_out: int


def mapped_network(config: Config) -> MappedNetwork:
    """The network that ``network_def`` names.

    Raises
    ------
    ModelError
        With the place of what is not known.
    """
    key = "network_def" if "network_def" in config else "network"
    name, arguments = _target(config.at(key), config.where(key))
    if name == "RetinaNet":
        return _retina_net(config, arguments, config.where(key))
    if name not in TASK_OF:
        raise ModelError(
            f"{config.where(key)}: the network {name} is not mapped; known are RetinaNet, {', '.join(TASK_OF)}."
        )
    where = f"{config.where(key)}: {name}"
    settings = dict(only_data(_bound(getattr(nets, name), arguments, where), where))
    try:
        checked_arguments(name, settings)
    except ModelError as wrong:
        raise ModelError(f"{config.where(key)}: {wrong}") from wrong
    accepted = parameters_of(name)

    def size(*words: str) -> int:
        told = [settings.get(word, accepted[word].default) for word in words if word in accepted]
        return int(told[0]) if told else 0

    dims = size("spatial_dims") or 3
    channels_in, channels_out = size("in_channels", "n_input_channels"), size("num_classes", "out_channels")
    return MappedNetwork(TASK_OF[name], f"{PREFIX}{name}", settings, dims, channels_in, channels_out)


def _target(values: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The last word of a ``_target_`` that is MONAI's own, and its arguments."""
    if not isinstance(values, dict) or "_target_" not in values:
        raise ModelError(f"{where}: a _target_ is needed, not {values!r:.120}.")
    place, _, name = str(values["_target_"]).rpartition(".")
    if not any(place == known or (known and place.startswith(f"{known}.")) for known in _PLACES):
        raise ModelError(f"{where}: {values['_target_']} is the bundle's own code or another library's; it is not run.")
    ignored = ("_target_", "_desc_", "_mode_", "_requires_", "_disabled_")
    return name, {key: value for key, value in values.items() if key not in ignored}


def _bound(constructor: Callable[..., Any], arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments by name, those that were given by their position too."""
    by_name = dict(arguments)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "args", "kwargs")]
    positional = by_name.pop("_args_", [])
    if len(positional) > len(names):
        raise ModelError(f"{where}: {len(positional)} arguments are more than it takes.")
    return {**dict(zip(names, positional, strict=False)), **by_name}


def _retina_net(config: Config, arguments: dict[str, Any], where: str) -> MappedNetwork:
    given = _bound(RetinaNet, arguments, where)
    extractor_where = f"{where}.feature_extractor"
    name, extractor = _target(given.pop("feature_extractor", None), extractor_where)
    if name != "resnet_fpn_feature_extractor":
        raise ModelError(f"{extractor_where}: {name} is not mapped; resnet_fpn_feature_extractor is.")
    extractor = _bound(resnet_fpn_feature_extractor, extractor, extractor_where)
    backbone, settings = _target(extractor.pop("backbone", None), f"{extractor_where}.backbone")
    if backbone not in TASK_OF or given.get("spatial_dims") != 3:
        raise ModelError(
            f"{where}: a 3D RetinaNet over a ResNet is mapped, not {given.get('spatial_dims')}D over {backbone}."
        )
    built = {
        "backbone": backbone,
        "backbone_settings": _bound(getattr(nets, backbone), settings, f"{extractor_where}.backbone"),
        "returned_layers": extractor.get("returned_layers", [1, 2, 3]),
        "num_classes": given.get("num_classes"),
        "num_anchors": given.get("num_anchors"),
        "size_divisible": given.get("size_divisible", [1, 1, 1]),
    }
    channels = built["backbone_settings"].get("n_input_channels", 3)
    return MappedNetwork(
        "detection", "retina_net", only_data(built, where), 3, int(channels), int(built["num_classes"])
    )


def boxes_and_windows(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a RetinaNet's boxes are read, and in which windows it runs.

    Raises
    ------
    ModelError
        With the place of what is not known.
    """
    where = config.where("detector.anchor_generator")
    detector = config.at("detector") if "detector" in config else {}
    anchors = detector.get("anchor_generator") if isinstance(detector, dict) else None
    values = dict(anchors) if isinstance(anchors, dict) else {}
    if str(values.pop("_target_", "")).rpartition(".")[2] != _ANCHORS:
        raise ModelError(f"{where}: {anchors!r:.120} is not mapped; {_ANCHORS} is.")
    calls = config.at("detector_ops") if "detector_ops" in config else []
    methods = {call["_target_"]: call for call in calls if isinstance(call, dict)}
    selector, sliding = methods.get(_SELECTOR, {}), methods.get(_WINDOWS, {})
    known = ("score_thresh", "topk_candidates_per_level", "nms_thresh", "detections_per_img")
    boxes = {
        **_only(values, ("feature_map_scales", "base_anchor_shapes"), where),
        **_only(selector, known, config.where("detector_ops")),
    }
    words = {"sw_batch_size": "batch", "roi_size": "roi_size", "overlap": "overlap", "mode": "mode"}
    found = _only(sliding, tuple(words), config.where("detector_ops"), ("device", "sw_device"))
    windows = {words[name]: value for name, value in found.items()}
    return boxes, {"roi_size": [0, 0, 0], **windows}


def _only(
    values: Mapping[str, Any], known: tuple[str, ...], where: str, ignored: tuple[str, ...] = ()
) -> dict[str, Any]:
    found = {name: value for name, value in values.items() if name not in ("_target_", "_desc_", *ignored)}
    for name in found:
        if name not in known:
            raise ModelError(f"{where}: the argument {name} is not mapped.")
    return {name: only_data(value, f"{where}: {name}") for name, value in found.items()}
