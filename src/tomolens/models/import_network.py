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

_PLACES = ("", "monai.networks.nets", "monai.apps.detection")


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
    name, arguments = monais_own(config.at(key), config.where(key))
    if name == "RetinaNet":
        return _retina_net(config, arguments, config.where(key))
    if name not in TASK_OF:
        raise ModelError(
            f"{config.where(key)}: the network {name} is not mapped; known are RetinaNet, {', '.join(TASK_OF)}."
        )
    where = f"{config.where(key)}: {name}"
    settings = dict(only_data(bound(getattr(nets, name), arguments, where), where))
    try:
        checked_arguments(name, settings)
    except ModelError as wrong:
        raise ModelError(f"{config.where(key)}: {wrong}") from wrong
    accepted = parameters_of(name)

    def size(*words: str) -> int:
        told = [(word, settings.get(word, accepted[word].default)) for word in words if word in accepted]
        return _whole(told[0][1], f"{where}.{told[0][0]}") if told else 0

    dims = size("spatial_dims") or 3
    if dims not in (2, 3):
        raise ModelError(f"{where}.spatial_dims is {dims}; 2 and 3 are mapped.")
    channels_in, channels_out = size("in_channels", "n_input_channels"), size("num_classes", "out_channels")
    return MappedNetwork(TASK_OF[name], f"{PREFIX}{name}", settings, dims, channels_in, channels_out)


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or value < 1:
        raise ModelError(f"{where} is {value!r:.80}; a whole number above 0 is needed.")
    return value


def monais_own(values: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The last word of a ``_target_`` that is MONAI's own, and its arguments.

    Raises
    ------
    ModelError
        If it is none of MONAI's.
    """
    if not isinstance(values, dict) or "_target_" not in values:
        raise ModelError(f"{where}: a _target_ is needed, not {values!r:.120}.")
    place, _, name = str(values["_target_"]).rpartition(".")
    if not any(place == known or (known and place.startswith(f"{known}.")) for known in _PLACES):
        raise ModelError(f"{where}: {values['_target_']} is the bundle's own code or another library's; it is not run.")
    ignored = ("_target_", "_desc_", "_mode_", "_requires_", "_disabled_")
    return name, {key: value for key, value in values.items() if key not in ignored}


def bound(constructor: Callable[..., Any], arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments by name, those that were given by their position too.

    Raises
    ------
    ModelError
        If there are more of them than it takes.
    """
    by_name = dict(arguments)
    names = [name for name in inspect.signature(constructor).parameters if name not in ("self", "args", "kwargs")]
    positional = by_name.pop("_args_", [])
    if not isinstance(positional, list) or len(positional) > len(names):
        raise ModelError(f"{where}: _args_ is {positional!r:.80}; it takes a list of up to {len(names)} arguments.")
    return {**dict(zip(names, positional, strict=False)), **by_name}


def _retina_net(config: Config, arguments: dict[str, Any], where: str) -> MappedNetwork:
    given = bound(RetinaNet, arguments, where)
    extractor_where = f"{where}.feature_extractor"
    name, extractor = monais_own(given.pop("feature_extractor", None), extractor_where)
    if name != "resnet_fpn_feature_extractor":
        raise ModelError(f"{extractor_where}: {name} is not mapped; resnet_fpn_feature_extractor is.")
    extractor = bound(resnet_fpn_feature_extractor, extractor, extractor_where)
    backbone, settings = monais_own(extractor.pop("backbone", None), f"{extractor_where}.backbone")
    if backbone not in TASK_OF or given.get("spatial_dims") != 3:
        raise ModelError(
            f"{where}: a 3D RetinaNet over a ResNet is mapped, not {given.get('spatial_dims')!r:.20}D over {backbone}."
        )
    only(given, ("spatial_dims", "num_classes", "num_anchors", "size_divisible"), where, ("use_list_output",))
    trained = ("spatial_dims", "pretrained_backbone", "trainable_backbone_layers")
    layers = only(extractor, ("returned_layers",), extractor_where, trained).get("returned_layers", [1, 2, 3])
    built = {
        "backbone": backbone,
        "backbone_settings": bound(getattr(nets, backbone), settings, f"{extractor_where}.backbone"),
        "returned_layers": layers,
        "num_classes": given.get("num_classes"),
        "num_anchors": given.get("num_anchors"),
        "size_divisible": given.get("size_divisible", [1, 1, 1]),
    }
    return _mapped_retina_net(only_data(built, where), where)


def _mapped_retina_net(built: Mapping[str, Any], where: str) -> MappedNetwork:
    channels = _whole(built["backbone_settings"].get("n_input_channels", 3), f"{where}: the backbone's input channels")
    for name in ("returned_layers", "size_divisible"):
        if not isinstance(built[name], list) or any(type(n) is not int or not 1 <= n <= 256 for n in built[name]):
            raise ModelError(f"{where}.{name} is {built[name]!r:.80}; a list of whole numbers above 0 is needed.")
    if _whole(built["num_classes"], f"{where}.num_classes") != 1 or len(built["size_divisible"]) != 3:
        raise ModelError(
            f"{where}: num_classes is {built['num_classes']}, size_divisible {built['size_divisible']}; a detector of "
            "one kind of finding in volumes is mapped."
        )
    _whole(built["num_anchors"], f"{where}.num_anchors")
    return MappedNetwork("detection", "retina_net", built, 3, channels, 1)


def only(
    values: Mapping[str, Any], known: tuple[str, ...], where: str, ignored: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The plain arguments of those names; those of ``ignored`` are known to be without effect.

    Raises
    ------
    ModelError
        With the place, name and value of any other.
    """
    found = {name: value for name, value in values.items() if name not in ("_target_", "_desc_", *ignored)}
    for name, value in found.items():
        if name not in known:
            raise ModelError(f"{where}: the argument {name} is not mapped; it is {value!r:.80}.")
    return {name: only_data(value, f"{where}: {name}") for name, value in found.items()}
