"""The networks of `monai.networks.nets` that an imported model may name, and the check of their arguments.

Nothing is looked up by a name that does not stand here, and no argument but plain data reaches a constructor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import monai.networks.nets as nets

from tomolens.core.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

PREFIX = "monai."
"""Before a MONAI network's name in a card, e.g. ``monai.UNet``."""
LARGEST_NUMBER = 1 << 16
LONGEST_LIST = 64

_TASKS = {
    "segmentation": (
        "UNet Unet BasicUNet BasicUnet BasicUNetPlusPlus SegResNet SegResNetDS SwinUNETR DynUNet UNETR VNet "
        "AttentionUnet HighResNet"
    ),
    "classification": (
        "DenseNet DenseNet121 DenseNet169 DenseNet201 DenseNet264 densenet121 densenet169 densenet201 densenet264 "
        "SENet154 SEResNet50 SEResNet101 SEResNet152 SEResNext50 SEResNext101 EfficientNetBN ResNet resnet10 resnet18 "
        "resnet34 resnet50 resnet101 resnet152 resnet200"
    ),
    "generation": "Generator",
}
TASK_OF: Mapping[str, str] = {name: task for task, names in _TASKS.items() for name in names.split()}
"""What the networks that are known do."""
_EINOPS = ("SwinUNETR",)
_RETIRED = {("SwinUNETR", "img_size"), ("UNETR", "pos_embed"), ("DenseNet", "pretrained")}
"""Arguments of earlier MONAI versions that only checked the input or no longer change anything."""


def monai_network(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """An untrained network of MONAI's.

    Raises
    ------
    ModelError
        If the network is not known, needs what is not installed, or refuses its arguments.
    """
    arguments = checked_arguments(name, settings)
    try:
        network: nn.Module = getattr(nets, name)(**arguments)
    except Exception as wrong:  # whatever a constructor makes of arguments that somebody else wrote
        raise ModelError(f"MONAI's {name} cannot be built with {dict(settings)}: {wrong}.") from wrong
    return network


def checked_arguments(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as MONAI's constructor takes them; nothing is downloaded (``pretrained`` is always False).

    Raises
    ------
    ModelError
        With the argument that is unknown, missing or no plain data.
    """
    if name not in TASK_OF:
        raise ModelError(f"The network {name!r} is not known; known are {', '.join(TASK_OF)}.")
    if name in _EINOPS and find_spec("einops") is None:
        raise ModelError(f"MONAI's {name} needs the package einops: pip install einops.")
    accepted = parameters_of(name)
    arguments = {key: value for key, value in settings.items() if (name, key) not in _RETIRED}
    unknown = [key for key in arguments if key not in accepted]
    if unknown:
        raise ModelError(f"MONAI's {name} has no argument {unknown[0]!r}; it has {', '.join(accepted)}.")
    missing = [
        key for key, parameter in accepted.items() if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        raise ModelError(f"MONAI's {name} needs the argument {missing[0]!r}.")
    for key, value in arguments.items():
        _check_plain(value, f"{name}'s argument {key}")
    return {**arguments, **({"pretrained": False} if "pretrained" in accepted else {})}


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    """Named parameters of a known network; where its constructor hands others on, those of what it hands them to."""
    constructor = getattr(nets, name)
    own = _named(constructor)
    if all(p.kind is not p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values()):
        return own
    is_class = inspect.isclass(constructor)
    given = ("block",) if is_class else ("block", "layers", "block_inplanes")
    parent = _named(constructor.__mro__[1] if is_class else nets.ResNet)
    return {**{key: parameter for key, parameter in parent.items() if key not in given}, **own}


def _named(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(constructor).parameters
    return {key: p for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}


def _check_plain(value: Any, what: str) -> None:
    """Refuse what is no plain data, and numbers and lists that no network has."""
    if isinstance(value, list | tuple | dict):
        if len(value) > LONGEST_LIST:
            raise ModelError(f"{what} has {len(value)} parts; at most {LONGEST_LIST} are accepted.")
        for part in value.values() if isinstance(value, dict) else value:
            _check_plain(part, what)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        raise ModelError(f"{what} is {value}; numbers up to {LARGEST_NUMBER} are accepted.")
    elif not isinstance(value, str | int | float | None):
        raise ModelError(f"{what} is {value!r}, which is no plain data.")
    elif isinstance(value, str) and len(value) > LONGEST_LIST:
        raise ModelError(f"{what} is a text of {len(value)} characters; no network's argument is.")
