"""A bundle's preprocessing, inferer and postprocessing as a recipe; what cannot be mapped is refused with its place."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import monai.transforms

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown, only_data
from tomolens.models.prepare import INTENSITY

_MOVES_NOTHING = (
    "LoadImage EnsureChannelFirst AsChannelFirst AddChannel EnsureType CastToType ToTensor ToDevice DeleteItems "
    "SelectItems FromMetaTensor Identity ConcatItems SaveImage"
).split()
"""Transforms that read, write or convert: a volume is read already, and its result is written by Tomolens."""
_NO_MATTER = (
    "_target_ _disabled_ _desc_ _mode_ keys allow_missing_keys meta_keys meta_key_postfix dtype lazy padding_mode "
    "align_corners recompute_affine scale_extent allow_smaller start_coord_key end_coord_key labels"
).split()
"""Arguments that change no number inside the image, or name where MONAI keeps something."""
_FOREGROUND = "$lambdax:x>0"


class Transform:
    """One transform of a bundle's list: its name without the ``d`` of dictionary transforms, arguments and place."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict) or not isinstance(values.get("_target_"), str):
            raise ModelError(f"{where}: a transform has a _target_; this is {_shown(values)}.")
        self.where, self.values = where, values
        self.target = values["_target_"].rpartition(".")[2]
        self.name = next((n for n in (self.target, self.target[:-1]) if n in KNOWN), self.target)

    @property
    def keys(self) -> list[Any]:
        """The entries of MONAI's dictionary that it changes."""
        keys = self.values.get("keys", [])
        return keys if isinstance(keys, list) else [keys]

    @property
    def disabled(self) -> bool:
        """Whether the bundle has switched it off."""
        switch = self.values.get("_disabled_", False)
        if not isinstance(switch, bool):
            raise self.refused(f"whether it is disabled cannot be told from {_shown(switch)}")
        return switch

    def arguments(self, key: str, *accepted: str, ignored: Sequence[str] = ()) -> dict[str, Any]:
        """The plain arguments of those names, of a list a key's own; any other argument that matters is refused."""
        found = {}
        for name, value in self.values.items():
            if name in accepted:
                own = value[self.keys.index(key)] if self._is_by_key(name, value, key) else value
                found[name] = only_data(own, f"{self.where}: {self.target}: {name}")
            elif name not in _NO_MATTER and name not in ignored:
                raise self.refused(f"the argument {name} is not mapped")
        return found

    def _is_by_key(self, name: str, value: Any, key: str) -> bool:
        by_key = isinstance(value, list) and len(value) == len(self.keys) and key in self.keys
        return by_key and name in (
            "mode",
            "nonzero",
            "channel_wise",
            "clip",
            "sigmoid",
            "softmax",
            "argmax",
            "threshold",
        )

    def refused(self, reason: str) -> ModelError:
        """The error that says why this transform is not taken."""
        return ModelError(f"{self.where}: {self.target}: {reason}.")


def _shown(value: Any) -> str:
    text = value.expression if isinstance(value, Unknown) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _orient(transform: Transform, key: str) -> dict[str, Any]:
    axcodes = str(transform.arguments(key, "axcodes").get("axcodes"))
    if len(axcodes) != 3 or sorted("RAS"["RLAPSI".index(c) // 2] if c in "RLAPSI" else "?" for c in axcodes) != list(
        "ARS"
    ):
        raise transform.refused(f"axcodes {axcodes!r} name no three axes of the patient")
    return {"do": "orient", "axcodes": axcodes}


def _space(transform: Transform, key: str) -> dict[str, Any]:
    given = transform.arguments(key, "pixdim", "mode", "diagonal", "ensure_same_shape")
    mode, pixdim = given.get("mode", "bilinear"), given.get("pixdim")
    if mode not in ("bilinear", "nearest") or given.get("diagonal"):
        raise transform.refused(f"mode {mode!r}, diagonal {given.get('diagonal', False)} is not mapped; bilinear is")
    if not isinstance(pixdim, list) or len(pixdim) != 3 or not all(isinstance(p, int | float) for p in pixdim):
        raise transform.refused(f"pixdim is three numbers, not {_shown(pixdim)}")
    return {"do": "space", "pixdim": [float(p) for p in pixdim], "mode": mode}


def _intensity(transform: Transform, key: str) -> dict[str, Any]:
    accepted = inspect.signature(getattr(monai.transforms, transform.name).__init__).parameters
    names = [name for name in accepted if name not in ("self", "dtype", "return_clipping_values")]
    return {"do": "intensity", "transform": transform.name, "arguments": transform.arguments(key, *names)}


def _crop_foreground(transform: Transform, key: str) -> dict[str, Any]:
    chosen = transform.values.get("select_fn")
    text = chosen.expression.replace(" ", "") if isinstance(chosen, Unknown) else chosen
    given = transform.arguments(key, "margin", "k_divisible", "source_key", ignored=("select_fn",))
    if text not in (None, _FOREGROUND) or given.get("k_divisible", 1) != 1 or given.get("source_key", key) != key:
        raise transform.refused(f"only the foreground of {key}, 'x > 0' with k_divisible 1, is mapped")
    return {"do": "crop_foreground", "margin": given.get("margin", 0)}


def _resize(transform: Transform, key: str) -> dict[str, Any]:
    given = transform.arguments(key, "spatial_size", "mode", "size_mode", "anti_aliasing")
    sizes = given.get("spatial_size")
    if given.get("size_mode", "all") != "all" or given.get("anti_aliasing") or not isinstance(sizes, list):
        raise transform.refused("only plain sizes without anti-aliasing are mapped")
    return {"do": "resize", "spatial_size": sizes, "mode": given.get("mode", "area")}


def _pad_divisible(transform: Transform, key: str) -> dict[str, Any]:
    given = transform.arguments(key, "k", "mode", "method")
    if given.get("mode", "constant") != "constant" or given.get("method", "symmetric") != "symmetric":
        raise transform.refused("only symmetric padding with 0 is mapped")
    return {"do": "pad_divisible", "k": given.get("k")}


_STEPS: Mapping[str, Callable[[Transform, str], dict[str, Any]]] = {
    "Orientation": _orient,
    "Spacing": _space,
    "CropForeground": _crop_foreground,
    "Resize": _resize,
    "DivisiblePad": _pad_divisible,
    **dict.fromkeys(INTENSITY, _intensity),
}
KNOWN = (
    *_STEPS,
    *_MOVES_NOTHING,
    *("Activations", "AsDiscrete", "Invert", "KeepLargestConnectedComponent", "Lambda"),
    *("ClipBoxToImage", "AffineBoxToWorldCoordinate", "ConvertBoxMode"),
)
"""Every transform that is understood somewhere."""


def transforms_of(config: Config, key: str) -> Iterator[Transform]:
    """The transforms of ``preprocessing`` or ``postprocessing``, each with its place.

    Raises
    ------
    ModelError
        If they are no plain list.
    """
    composed = config.at(key)
    parts = composed.get("transforms", []) if isinstance(composed, dict) else composed
    if not isinstance(parts, list):
        raise ModelError(f"{config.where(key)}: a list of transforms is needed, not {_shown(parts)}.")
    for number, values in enumerate(parts):
        yield Transform(values, config.where(key, "transforms", number))


def preparation(config: Config, image_key: str, spatial_dims: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The steps before the network, and what the card should say of them.

    Raises
    ------
    ModelError
        With the place of the first transform that cannot be mapped.
    """
    steps: list[dict[str, Any]] = []
    notes = []
    for transform in transforms_of(config, "preprocessing") if "preprocessing" in config else ():
        if transform.keys and image_key not in transform.keys:
            continue
        if transform.disabled and transform.name != "Spacing":
            continue
        if transform.disabled:
            notes.append("The bundle's switched-off resampling is done, since a scan is read as it was acquired.")
        if transform.name in _MOVES_NOTHING:
            continue
        if transform.name not in _STEPS:
            raise transform.refused(f"this transform is not mapped; known are {', '.join(_STEPS)}")
        steps.append(_STEPS[transform.name](transform, image_key))
    if spatial_dims == 3 and not any(step["do"] == "orient" for step in steps):
        steps.insert(0, {"do": "orient", "axcodes": "LPS"})
        notes.append("The bundle states no orientation; images are turned to left, posterior, superior.")
    return steps, notes


_INFERER_IGNORED = (
    "_target_ _disabled_ _desc_ device sw_device progress cache_roi_weight_map cpu_thresh buffer_steps buffer_dim "
    "with_coord"
).split()


def windows(config: Config, spatial_dims: int) -> dict[str, Any] | None:
    """The inferer's windows; None where the network takes the whole image.

    Raises
    ------
    ModelError
        If the inferer or one of its settings is not known.
    """
    inferer = config.at("inferer") if "inferer" in config else {"_target_": "SimpleInferer"}
    target = str(inferer.get("_target_")).rpartition(".")[2] if isinstance(inferer, dict) else str(inferer)
    where = f"{config.where('inferer')}: {target}"
    if target == "SimpleInferer":
        return None if spatial_dims == 3 else {"roi_size": [0, 0], "overlap": 0.0, "slice_axis": 2}
    if target not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt", "SliceInferer"):
        raise ModelError(f"{where}: this inferer is not mapped; SlidingWindow-, Slice- and SimpleInferer are.")
    values = {name: value for name, value in inferer.items() if name not in _INFERER_IGNORED}
    roi = values.pop("roi_size", None)
    found = {_WINDOW_WORDS.get(name, name): only_data(value, f"{where}: {name}") for name, value in values.items()}
    unknown = set(found) - {"batch", "overlap", "mode", "sigma_scale", "padding_mode", "cval", "slice_axis"}
    if unknown:
        raise ModelError(f"{where}: the argument {min(unknown)} is not mapped.")
    sizes = roi if isinstance(roi, list) else [roi] * spatial_dims
    found["roi_size"] = [0 if size is None else size for size in only_data(sizes, f"{where}: roi_size")]
    default = 0 if target == "SliceInferer" else 2  # MONAI's own; the others take slices of the last axis
    return {**found, **({"slice_axis": found.get("slice_axis", default)} if spatial_dims == 2 else {})}


_WINDOW_WORDS = {"sw_batch_size": "batch", "spatial_dim": "slice_axis"}


def answer(config: Config) -> dict[str, Any]:
    """How the channels are read: activation, argmax or threshold, before or after going back to the scan's grid.

    Raises
    ------
    ModelError
        With the place of what cannot be mapped, or if nothing says how the answer is read.
    """
    found: dict[str, Any] = {"activation": "none", "back": "linear"}
    for transform in transforms_of(config, "postprocessing") if "postprocessing" in config else ():
        if transform.disabled or transform.name in _MOVES_NOTHING or (transform.keys and "pred" not in transform.keys):
            continue
        if transform.name not in _READINGS:
            raise transform.refused(f"this transform is not mapped; known are {', '.join(_READINGS)}")
        found |= _READINGS[transform.name](transform, found)
    return found


def _activation(transform: Transform, found: Mapping[str, Any]) -> dict[str, Any]:
    given = transform.arguments("pred", "sigmoid", "softmax", "other")
    if given.get("other"):
        raise transform.refused("only softmax and sigmoid are mapped")
    return {"activation": "softmax" if given.get("softmax") else "sigmoid" if given.get("sigmoid") else "none"}


def _decision(transform: Transform, found: Mapping[str, Any]) -> dict[str, Any]:
    given = transform.arguments("pred", "argmax", "threshold", ignored=("to_onehot",))
    if given.get("argmax"):
        return {"decision": "argmax"}
    if not isinstance(given.get("threshold"), int | float) or isinstance(given["threshold"], bool):
        raise transform.refused("argmax or a threshold is needed")
    return {"decision": "threshold", "threshold": float(given["threshold"])}


def _back(transform: Transform, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"back": "nearest" if "decision" in found else "linear"}


def _largest(transform: Transform, found: Mapping[str, Any]) -> dict[str, Any]:
    given = transform.arguments("pred", "applied_labels", "independent", "num_components", "connectivity", "is_onehot")
    labels = given.get("applied_labels")
    labels = [labels] if isinstance(labels, int) else labels
    whole = given.get("independent", True) and given.get("num_components", 1) == 1
    if found.get("decision") != "argmax" or not isinstance(labels, list) or not whole or given.get("is_onehot"):
        raise transform.refused("only the single largest part of each of some applied_labels after argmax is mapped")
    return {"largest": labels}


def _paint(transform: Transform, found: Mapping[str, Any]) -> dict[str, Any]:
    """Regions painted over each other: nested ``torch.where(x[[channel]] > 0, label, ...)``, read, not run."""
    function = transform.values.get("func")
    text = function.expression.removeprefix("$") if isinstance(function, Unknown) else ""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        surest_first = list(_painted(tree.body)) if isinstance(tree, ast.Lambda) else []
    except (SyntaxError, ValueError, RecursionError):
        surest_first = []
    if not surest_first or found.get("decision") != "threshold":
        raise transform.refused(f"the function {_shown(function)} is not evaluated and not one that is known")
    return {"paint": surest_first[::-1]}


def _painted(node: ast.expr) -> Iterator[tuple[int, int]]:
    match node:
        case ast.Constant(value=0):
            return
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
            args=[
                ast.Compare(left=ast.Subscript(slice=chosen), ops=[ast.Gt()], comparators=[ast.Constant(value=0)]),
                ast.Constant(value=int() as label),
                otherwise,
            ],
        ):
            channel = ast.literal_eval(chosen)
            yield (channel[0] if isinstance(channel, list) else int(channel)), label
            yield from _painted(otherwise)
        case _:
            raise ValueError("no painting")


_READINGS: Mapping[str, Callable[[Transform, Mapping[str, Any]], dict[str, Any]]] = {
    "Activations": _activation,
    "AsDiscrete": _decision,
    "Invert": _back,
    "KeepLargestConnectedComponent": _largest,
    "Lambda": _paint,
}
