"""A bundle's preprocessing and inferer as a recipe; what cannot be mapped is refused with its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import monai.transforms

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown, only_data
from tomolens.models.import_transforms import (
    IMAGE,
    MOVES_NOTHING,
    Transform,
    all_transforms,
    monais,
    shown,
    transforms_of,
)
from tomolens.models.prepare import INTENSITY

FINEST_MM, COARSEST_MM = 0.05, 100.0
"""Between these a spacing is believed; a finer one would fill any memory."""
LARGEST_SIDE = 2048
"""Voxels along an axis that an image may be resized to."""
_FOREGROUND = "$lambdax:x>0"
_RAS_LABELS = [["L", "R"], ["P", "A"], ["I", "S"]]
_AXIS_OF = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_READERS = ("itkreader", "nibabelreader", "pydicomreader", "nrrdreader", "pilreader")
"""MONAI's readers that give a scan's voxels in the order (i, j, k) and know where they lie."""
_LOADED_AS_READ: Mapping[str, tuple[Any, ...]] = {
    "affine_lps_to_ras": (None, True),
    "as_closest_canonical": (None, False),
    "channel_dim": (None, "no_channel"),
    "converter": (None,),
    "swap_ij": (None, True),
}
"""Arguments of MONAI's readers, and the values with which they read a scan as Tomolens does."""
_LOADING_IGNORED = (
    "image_only ensure_channel_first simple_keys prune_meta_pattern prune_meta_sep expanduser overwriting "
    "series_meta prune_metadata squeeze_non_spatial_dims to_gpu"
).split()
_RESIZINGS = ("area", "nearest", "nearest-exact", "linear", "bilinear", "trilinear")


def _orient(transform: Transform, dims: int) -> dict[str, Any]:
    given = transform.arguments(IMAGE, "axcodes", "as_closest_canonical", "labels")
    if given.get("labels") not in (None, _RAS_LABELS):
        raise transform.refused(f"labels {shown(given['labels'])} are not mapped; MONAI's own {_RAS_LABELS} are")
    axcodes = "RAS" if transform.flag(given, "as_closest_canonical") else str(given.get("axcodes"))
    if sorted(_AXIS_OF.get(code, 3) for code in axcodes) != [0, 1, 2]:
        raise transform.refused(f"axcodes {axcodes!r:.80} name no three axes of the patient")
    return {"do": "orient", "axcodes": axcodes}


def _space(transform: Transform, dims: int) -> dict[str, Any]:
    ignored = ("padding_mode", "align_corners", "recompute_affine", "scale_extent", "ensure_same_shape")
    given = transform.arguments(IMAGE, "pixdim", "mode", "diagonal", ignored=ignored)
    mode, pixdim = given.get("mode", "bilinear"), given.get("pixdim")
    if mode not in ("bilinear", "nearest") or transform.flag(given, "diagonal"):
        raise transform.refused(f"mode {mode!r}, diagonal {given.get('diagonal', False)} is not mapped; bilinear is")
    if not isinstance(pixdim, list) or len(pixdim) != 3 or not all(map(_is_number, pixdim)):
        raise transform.refused(f"pixdim is three numbers, not {shown(pixdim)}")
    if not all(p <= 0 or FINEST_MM <= p <= COARSEST_MM for p in pixdim):
        raise transform.refused(f"pixdim is {pixdim!r:.80}; {FINEST_MM} to {COARSEST_MM:g} mm are accepted")
    return {"do": "space", "pixdim": [float(max(p, -1)) for p in pixdim], "mode": mode}


def _intensity(transform: Transform, dims: int) -> dict[str, Any]:
    made = getattr(monai.transforms, transform.name)
    names = [name for name in inspect.signature(made.__init__).parameters if name not in ("self", "dtype")]
    arguments = transform.arguments(IMAGE, *(name for name in names if name != "return_clipping_values"))
    try:
        made(**arguments)
    except Exception as wrong:  # whatever MONAI makes of arguments that somebody else wrote
        raise transform.refused(f"MONAI does not take {shown(arguments)}: {wrong}") from wrong
    return {"do": "intensity", "transform": transform.name, "arguments": arguments}


def _crop_foreground(transform: Transform, dims: int) -> dict[str, Any]:
    chosen = transform.values.get("select_fn")
    text = chosen.expression.replace(" ", "") if isinstance(chosen, Unknown) else chosen
    ignored = ("select_fn", "start_coord_key", "end_coord_key")
    given = transform.arguments(IMAGE, "margin", "k_divisible", "source_key", "allow_smaller", ignored=ignored)
    if text not in (None, _FOREGROUND) or given.get("k_divisible", 1) != 1 or given.get("source_key", IMAGE) != IMAGE:
        raise transform.refused(f"only the foreground of {IMAGE}, 'x > 0' with k_divisible 1, is mapped")
    margin = given.get("margin", 0)
    if not all(_is_whole(side, 0) for side in _sides(margin)):
        raise transform.refused(f"margin is {shown(margin)}; a whole number of voxels, or one for each axis, is needed")
    return {"do": "crop_foreground", "margin": margin, "allow_smaller": transform.flag(given, "allow_smaller")}


def _resize(transform: Transform, dims: int) -> dict[str, Any]:
    given = transform.arguments(
        IMAGE, "spatial_size", "mode", "size_mode", "anti_aliasing", "align_corners", ignored=("anti_aliasing_sigma",)
    )
    sizes, mode = given.get("spatial_size"), given.get("mode", "area")
    if given.get("size_mode", "all") != "all" or transform.flag(given, "anti_aliasing"):
        raise transform.refused("only plain sizes (size_mode all) without anti_aliasing are mapped")
    if mode not in _RESIZINGS:
        raise transform.refused(f"mode {shown(mode)} is not mapped; {', '.join(_RESIZINGS)} are")
    if transform.flag(given, "align_corners"):
        raise transform.refused("align_corners true is not mapped; false is")
    lengths = (2, 3) if dims == 2 else (3,)  # a 2D network reads a picture, or a volume slice by slice
    if not isinstance(sizes, list) or len(sizes) not in lengths or not all(_is_whole(size, -1) for size in sizes):
        raise transform.refused(
            f"spatial_size is a whole number up to {LARGEST_SIDE} for each axis, or -1, not {shown(sizes)}"
        )
    return {"do": "resize", "spatial_size": sizes, "mode": mode}


def _pad_divisible(transform: Transform, dims: int) -> dict[str, Any]:
    given = transform.arguments(IMAGE, "k", "mode", "method")
    if given.get("mode", "constant") != "constant" or given.get("method", "symmetric") != "symmetric":
        raise transform.refused("only symmetric padding with 0 is mapped")
    if not all(_is_whole(side, 1) for side in _sides(given.get("k"))):
        raise transform.refused(f"k is {shown(given.get('k'))}; a whole number, or one for each axis, is needed")
    return {"do": "pad_divisible", "k": given["k"]}


def _check_loading(transform: Transform) -> None:
    """Refuse a reader that gives other numbers, or the axes in another order, than a scan has that is read here."""
    given = transform.arguments(IMAGE, "reader", "reverse_indexing", *_LOADED_AS_READ, ignored=_LOADING_IGNORED)
    reader = given.pop("reader", None)
    readers = [] if reader is None else reader if isinstance(reader, list) else [reader]
    names = [
        name.removeprefix("monai.data.image_reader.").removeprefix("monai.data.").lower() for name in map(str, readers)
    ]
    if not set(names) <= set(_READERS):
        raise transform.refused(f"the reader {shown(reader)} is not mapped; ITKReader and MONAI's like it are")
    alone = names[0] if len(names) == 1 else ""
    reversing = {"itkreader": (None, False), "pilreader": (None, True)}.get(alone, (None,))
    as_read = {**_LOADED_AS_READ, "reverse_indexing": reversing}
    for name, value in given.items():
        if value not in as_read[name]:
            raise transform.refused(f"{name} {shown(value)} is not mapped; it changes how the axes or numbers are read")


def _sides(value: Any) -> list[Any]:
    """One value for each of three axes; a list of another length gives what is no number."""
    return [value] if not isinstance(value, list) else value if len(value) == 3 else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST_SIDE


_STEPS: Mapping[str, Callable[[Transform, int], dict[str, Any]]] = {
    "Orientation": _orient,
    "Spacing": _space,
    "CropForeground": _crop_foreground,
    "Resize": _resize,
    "DivisiblePad": _pad_divisible,
    **dict.fromkeys(INTENSITY, _intensity),
}


_POINTWISE = ("ScaleIntensityRange", "ShiftIntensity", "ThresholdIntensity")
"""Changes of numbers that ask nothing of the rest of the image."""


def preparation(config: Config, spatial_dims: int, lungs_only: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """The steps before the network, and what the card should say of them.

    With ``lungs_only`` they are done on the box around the lungs, and have to give there what they give on the scan.

    Raises
    ------
    ModelError
        With the place of the first transform that cannot be mapped, or if nothing prepares the image.
    """
    steps: list[dict[str, Any]] = []
    notes = []
    _check_is_prepared(config)
    for transform in transforms_of(config, "preprocessing", IMAGE):
        if transform.disabled:
            notes.append("The bundle's switched-off resampling is done, since a scan is read as it was acquired.")
        if transform.name == "LoadImage":
            _check_loading(transform)
        if transform.name in MOVES_NOTHING:
            transform.check_conversion(IMAGE)
            continue
        if transform.name not in _STEPS:
            raise transform.refused(f"this transform is not mapped; known are {', '.join(_STEPS)}")
        steps.append(_STEPS[transform.name](transform, spatial_dims))
        if lungs_only and not _is_local(steps[-1]):
            raise transform.refused(
                "what it does depends on all of the image, and a detector is run on the box around the lungs; known "
                f"there are Orientation, Spacing, {', '.join(_POINTWISE)} and NormalizeIntensity by given numbers"
            )
    if spatial_dims == 3 and not any(step["do"] == "orient" for step in steps):
        steps.insert(0, {"do": "orient", "axcodes": "LPS"})
        notes.append("The bundle states no orientation; images are turned to left, posterior, superior.")
    return steps, notes


def _is_local(step: Mapping[str, Any]) -> bool:
    """Whether a part of the image is prepared alone as it is within the whole."""
    if step["do"] != "intensity":
        return step["do"] in ("orient", "space")
    given = step["arguments"]
    is_given = given.get("subtrahend") is not None and given.get("divisor") is not None
    return step["transform"] in _POINTWISE or (step["transform"] == "NormalizeIntensity" and is_given)


def _check_is_prepared(config: Config) -> None:
    """Some transform works on the image: else the bundle prepares it under another key or in another place."""
    found = [transform for transform in all_transforms(config, "preprocessing") if not transform.disabled]
    if not any(not transform.is_dictionary or IMAGE in transform.keys for transform in found):
        raise ModelError(f"{config.where('preprocessing')}: no transform works on {IMAGE!r}, which the network reads.")


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
    target, inferer = inferer_of(config)
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


def check_taken_whole(config: Config) -> None:
    """Refuse an inferer that does more than to give the whole image to the network, as is done for classes and images.

    Raises
    ------
    ModelError
        With the inferer.
    """
    target, _ = inferer_of(config)
    if target != "SimpleInferer":
        raise ModelError(f"{config.where('inferer')}: {target}: this inferer is not mapped here; SimpleInferer is.")


def inferer_of(config: Config) -> tuple[str, dict[str, Any]]:
    """The inferer's name, in full where it is not MONAI's, and its values."""
    inferer = config.at("inferer") if "inferer" in config else {"_target_": "SimpleInferer"}
    if not isinstance(inferer, dict):
        return shown(inferer), {}
    target = str(inferer.get("_target_"))
    return monais(target) or target, inferer


_WINDOW_WORDS = {"sw_batch_size": "batch", "spatial_dim": "slice_axis"}
