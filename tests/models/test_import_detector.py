from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from torch import nn

from tests.models.zoo_bundles import nodule_detection
from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config
from tomolens.models.import_detector import boxes_and_windows
from tomolens.models.import_network import mapped_network
from tomolens.models.inference import Backend
from tomolens.models.recipe import Boxes, Windows
from tomolens.models.retina_detector import BoxSearch

CPU = Backend(torch.device("cpu"), torch.float32)


def read(change=None):
    """What is read of the zoo's detector after a change of its configuration."""
    _, values, _ = nodule_detection()
    if change is not None:
        change(values)
    config = Config(values, "inference.json")
    return boxes_and_windows(config, mapped_network(config).settings)


def calling(*calls):
    return lambda values: values.update(detector_ops=[f"$@detector.{call}" for call in calls])


def setting(key, **more):
    return lambda values: values[key].update(more)


def test_what_the_zoos_detector_says_is_read():
    boxes, windows = read()
    assert boxes["score_thresh"], boxes["nms_thresh"] == (0.02, 0.22)
    assert boxes["base_anchor_shapes"] == [[6, 8, 4], [8, 6, 5], [10, 10, 6]]
    assert windows == {"roi_size": [64, 64, 32], "overlap": 0.25, "batch": 1, "mode": "constant"}


def test_what_a_detector_leaves_unsaid_is_monais_default():
    boxes, windows = read(calling("set_box_selector_parameters(0.3)", "set_sliding_window_inferer([32, 32, 32], 2)"))
    assert boxes["score_thresh"] == 0.3
    assert windows == {"roi_size": [32, 32, 32], "batch": 2, "overlap": 0.5}
    assert read(calling())[1] == {"roi_size": [0, 0, 0]}


def test_how_a_detector_was_trained_does_not_matter():
    trained = ("set_atss_matcher(num_candidates=4, center_in_gt=False)", "set_hard_negative_sampler(64, 0.3)")
    one = "set_box_coder_weights([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])"
    assert read(calling(*trained, "set_target_keys('box', 'label')", one)) == read(calling())


REFUSALS = {
    "a score that is none": (
        calling("set_box_selector_parameters(apply_sigmoid=False)"),
        "detector_ops: apply_sigmoid",
    ),
    "another coding of boxes": (calling("set_box_coder_weights([10, 10, 10, 5, 5, 5])"), "detector_ops: set_box_coder"),
    "an unknown method": (calling("set_nothing(1)"), r"detector_ops\[0\]: .set_nothing is not evaluated"),
    "an expression": (lambda v: v.update(detector_ops=["$[x for x in y]"]), r"detector_ops\[0\]: \$\[x for x in y\]"),
    "an unknown word": (calling("set_box_selector_parameters(colour=1)"), "the argument colour is not mapped; it is 1"),
    "no list of calls": (lambda v: v.update(detector_ops=None), "detector_ops: a list of calls is needed, not None"),
    "another overlap": (setting("detector", box_overlap_metric="$giou"), "the argument box_overlap_metric is not"),
    "another detector": (setting("detector", _target_="scripts.RetinaNetDetector"), "the bundle's own code"),
    "swapped axes": (setting("anchor_generator", indexing="xy"), "anchor_generator: indexing"),
    "too few anchors": (setting("anchor_generator", base_anchor_shapes=[[6, 8, 4]]), "the network answers for 3"),
    "too many levels": (setting("anchor_generator", feature_map_scales=[1, 2, 4, 8]), "the network answers for 3"),
    "another inferer": (setting("inferer", _target_="scripts.Mine"), "inferer: scripts.Mine is not mapped"),
    "another detector in windows": (
        setting("inferer", detector="@network"),
        "inferer.detector: .* is not the bundle's",
    ),
    "windows always": (setting("inferer", force_sliding_window=True), "inferer: force_sliding_window other than false"),
    "a wrapped network": (setting("detector", network="$scripts.wrap(@network)"), "detector.network: .*scripts.wrap"),
    "several kinds": (setting("network_def", num_classes=4), "num_classes is 4"),
    "no number of kinds": (setting("network_def", num_classes=None), "num_classes is None"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_detector_that_cannot_be_run_as_its_bundle_says_is_refused_with_the_place(case):
    change, message = REFUSALS[case]
    with pytest.raises(ModelError, match=f"inference.json: .*{message}"):
        read(change)


class Speckled(nn.Module):
    """Answers at three levels as a RetinaNet does, with boxes and scores drawn from the image: fast."""

    spatial_dims, num_classes, size_divisible, num_anchors = 3, 1, [8, 8, 8], 3
    cls_key, box_reg_key = "classification", "box_regression"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.scores, self.boxes = nn.Conv3d(1, 3, 3, padding=1), nn.Conv3d(1, 18, 3, padding=1)

    def forward(self, image):
        levels = [nn.functional.avg_pool3d(image, side) for side in (2, 4, 8)]
        return {
            self.cls_key: [self.scores(level) for level in levels],
            self.box_reg_key: [self.boxes(level) for level in levels],
        }


SELECTIONS = {
    "all of it": (
        "set_box_selector_parameters(score_thresh=0.5,nms_thresh=0.1,topk_candidates_per_level=40,detections_per_img=9)",
        "set_sliding_window_inferer(roi_size=[16,16,8],overlap=0.5,sw_batch_size=2,mode='gaussian',sigma_scale=0.2)",
    ),
    "defaults": ("set_sliding_window_inferer([16,16,8])",),
    "an image with fewer voxels than a window": ("set_sliding_window_inferer([24,32,16])",),
    "no window": ("set_box_selector_parameters(0.4,20,0.3,50)",),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_boxes_are_those_of_monais_detector_after_the_same_calls_on_the_same_tensor(case):
    boxes, windows = read(calling(*SELECTIONS[case]))
    image, network = torch.rand(1, 20, 16, 28, generator=torch.Generator().manual_seed(2)), Speckled().eval()
    ours, scores = BoxSearch(network, Boxes(**boxes), Windows(**windows), CPU, lambda step: None).over(image)
    anchors = AnchorGeneratorWithAnchorShape(boxes["feature_map_scales"], boxes["base_anchor_shapes"])
    detector = RetinaNetDetector(network, anchors).eval()
    for call in SELECTIONS[case]:
        eval(f"detector.{call}", {"detector": detector})
    is_sliding = detector.inferer is not None and image.numel() >= prod(detector.inferer.roi_size)
    with torch.no_grad():
        (theirs,) = detector(image[None], use_inferer=is_sliding)
    order = np.argsort(-theirs["labels_scores"].numpy(), kind="stable")
    assert 5 < len(scores) == len(order)
    assert np.allclose(scores, theirs["labels_scores"].numpy()[order], atol=1e-5)
    assert np.allclose(ours, theirs["boxes"].numpy()[order], atol=1e-3)
