"""How a bundle's RetinaNet detector reads its boxes, and in which windows it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown
from tomolens.models.import_network import bound, monais_own, only
from tomolens.models.import_steps import inferer_of
from tomolens.models.import_transforms import shown

_ANCHORS = "AnchorGeneratorWithAnchorShape"
_SELECTOR = "set_box_selector_parameters"
_WINDOWS = "set_sliding_window_inferer"
_CODER = "set_box_coder_weights"
_TRAINING = (
    "set_target_keys set_cls_loss set_box_regression_loss set_regular_matcher set_atss_matcher "
    "set_hard_negative_sampler set_balanced_sampler"
).split()
"""Methods of the detector that say how it is trained, or under which words it answers."""
_NETWORKS_OWN = ("network", "debug", "spatial_dims", "num_classes", "size_divisible", "cls_key", "box_reg_key")
"""Arguments of the detector that are read where the network lacks them; a RetinaNet has them all."""
_INFERER = "scripts.detection_inferer.RetinaNetInferer"
"""The zoo's own: the detector, with windows where the image has at least as many voxels as one."""
_WORDS = {"sw_batch_size": "batch", **{n: n for n in ("roi_size", "overlap", "mode", "sigma_scale")}}
_WORDS |= {"padding_mode": "padding_mode", "cval": "cval"}
_NO_WINDOW = ("device", "sw_device", "progress", "cache_roi_weight_map")


def boxes_and_windows(config: Config, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a RetinaNet's boxes are read, and in which windows it runs; ``settings`` are its network's.

    Raises
    ------
    ModelError
        With the place of what is not known.
    """
    where = config.where("detector")
    name, detector = monais_own(config.at("detector") if "detector" in config else None, where)
    if name != "RetinaNetDetector":
        raise ModelError(f"{where}: {name} is not mapped; RetinaNetDetector is.")
    detector = bound(RetinaNetDetector, detector, where)
    anchors = _anchors(detector.pop("anchor_generator", None), settings, f"{where}.anchor_generator")
    only(detector, (), where, _NETWORKS_OWN)
    if detector.get("network") != config.at("network" if "network" in config else "network_def"):
        raise ModelError(f"{where}.network: {shown(detector.get('network'))} is not the bundle's network.")
    _check_inferer(config)
    calls = _calls(config)
    where = config.where("detector_ops")
    selector = bound(RetinaNetDetector.set_box_selector_parameters, calls.get(_SELECTOR, {}), where)
    if selector.pop("apply_sigmoid", True) is not True:
        raise ModelError(f"{where}: apply_sigmoid other than true is not mapped.")
    known = ("score_thresh", "topk_candidates_per_level", "nms_thresh", "detections_per_img")
    return {**anchors, **only(selector, known, where)}, _windows(calls, where)


def _check_inferer(config: Config) -> None:
    where, (target, inferer) = config.where("inferer"), inferer_of(config)
    if target != _INFERER:
        raise ModelError(f"{where}: {target} is not mapped; {_INFERER} is.")
    if inferer.get("detector") != config.at("detector"):
        raise ModelError(f"{where}.detector: {shown(inferer.get('detector'))} is not the bundle's detector.")
    if only(inferer, ("force_sliding_window",), where, ("detector",)).get("force_sliding_window", False) is not False:
        raise ModelError(f"{where}: force_sliding_window other than false is not mapped.")


def _anchors(values: Any, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The anchors, if there are as many as the network's answer has places for."""
    name, values = monais_own(values, where)
    if name != _ANCHORS:
        raise ModelError(f"{where}: {name} is not mapped; {_ANCHORS} is.")
    given = bound(AnchorGeneratorWithAnchorShape, values, where)
    if given.pop("indexing", "ij") != "ij":
        raise ModelError(f"{where}: indexing other than 'ij' is not mapped.")
    found = only(given, ("feature_map_scales", "base_anchor_shapes"), where)
    wanted = {"feature_map_scales": len(settings["returned_layers"]) + 1, "base_anchor_shapes": settings["num_anchors"]}
    for key, count in wanted.items():
        if not isinstance(found.get(key), list) or len(found[key]) != count:
            raise ModelError(f"{where}: {key} is {found.get(key)!r:.80}; the network answers for {count}.")
    return found


def _windows(calls: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    """The windows with MONAI's defaults for a detector; without the call the image is taken whole."""
    if _WINDOWS not in calls:
        return {"roi_size": [0, 0, 0]}
    given = bound(RetinaNetDetector.set_sliding_window_inferer, calls[_WINDOWS], where)
    found = only({"overlap": 0.5, **given}, tuple(_WORDS), where, _NO_WINDOW)
    roi = found.get("roi_size")
    return {_WORDS[name]: value for name, value in found.items()} | {
        "roi_size": roi if isinstance(roi, list) else [roi] * 3
    }


def _calls(config: Config) -> dict[str, dict[str, Any]]:
    """The detector's methods that are called, by name; of a method called twice the last."""
    where = config.where("detector_ops")
    calls = config.at("detector_ops") if "detector_ops" in config else []
    if not isinstance(calls, list):
        raise ModelError(f"{where}: a list of calls is needed, not {calls!r:.80}.")
    found, known = {}, (_SELECTOR, _WINDOWS, _CODER, *_TRAINING)
    for number, call in enumerate(calls):
        place = f"{where}[{number}]"
        method = str(call.get("_target_")) if isinstance(call, dict) else ""
        if not method.startswith(".") or method.removeprefix(".") not in known:
            text = call.expression if isinstance(call, Unknown) else method or f"{call!r:.80}"
            raise ModelError(f"{place}: {text} is not evaluated and not mapped; known are {', '.join(known)}.")
        found[method.removeprefix(".")] = {key: value for key, value in call.items() if key != "_target_"}
    weights = list(found.get(_CODER, {}).values())
    if weights not in ([], [[[1.0] * 6]], [[1.0] * 6]):
        raise ModelError(f"{where}: {_CODER}: {weights!r:.80} is not mapped; weights of 1 are.")
    return found
