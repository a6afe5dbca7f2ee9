from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import KeepLargestConnectedComponent

from tests.models.zoo_bundles import PAINTING, compose, mednist_gan, nodule_detection, step
from tomolens.core.errors import ModelError
from tomolens.core.grid import Grid
from tomolens.models.import_answer import answer, check_boxes, made_images
from tomolens.models.import_config import Config
from tomolens.models.label_maps import labels_on
from tomolens.models.recipe import Answer

SOFTMAX = step("Activationsd", "pred", softmax=True)
SIGMOID = step("Activationsd", "pred", sigmoid=True)
ARGMAX = step("AsDiscreted", "pred", argmax=True)
THRESHOLD = step("AsDiscreted", "pred", threshold=0.5)


def back(**arguments):
    return step("Invertd", "pred", transform="@preprocessing", orig_keys="image", **arguments)


def largest(**arguments):
    return step("KeepLargestConnectedComponentd", "pred", **arguments)


def read(*transforms, channels=3):
    values = {"preprocessing": compose(step("LoadImaged")), "postprocessing": compose(*transforms)}
    return answer(Config(values, "inference.json"), channels)


REFUSALS = {
    "another activation": (step("Activationsd", "pred", other="$torch.tanh"), "other: the expression"),
    "two activations": (step("Activationsd", "pred", softmax=True, sigmoid=True), "either softmax or sigmoid"),
    "activated after the decision": (ARGMAX, SOFTMAX, "after AsDiscrete"),
    "activated after being brought back": (back(nearest_interp=False), SOFTMAX, "after AsDiscrete or a linear Invert"),
    "activated twice": (SOFTMAX, SIGMOID, "stands there twice"),
    "a threshold on labels": (step("AsDiscreted", "pred", argmax=True, threshold=0.5), "argmax with the threshold 0.5"),
    "a monstrous threshold": (step("AsDiscreted", "pred", threshold=10**400), "a threshold is needed"),
    "one-hot probabilities": (step("AsDiscreted", "pred", threshold=0.5, to_onehot=3), "to_onehot 3"),
    "rounded": (step("AsDiscreted", "pred", rounding="torchrounding"), "argument rounding is not mapped"),
    "a function after it": (ARGMAX, back(post_func="$lambda x: x * 2"), "post_func: the expression"),
    "undone for another entry": (step("Invertd", "pred", transform="@preprocessing", orig_keys="label"), "'label'"),
    "undone for itself": (step("Invertd", "pred", transform="@preprocessing"), "orig_keys is None"),
    "something else undone": (step("Invertd", "pred", transform={"_target_": "Compose"}, orig_keys="image"), "undoes"),
    "largest of channels": (THRESHOLD, largest(applied_labels=[1]), "after argmax alone"),
    "largest of the union": (ARGMAX, largest(applied_labels=[1, 2], independent=False), "independent of the others"),
    "two largest": (ARGMAX, largest(num_components=2), "single largest part"),
    "faces only": (ARGMAX, largest(applied_labels=[1], connectivity=1), "connectivity 1 is not mapped"),
    "one-hot or not": (ARGMAX, largest(is_onehot=True), "is_onehot is True"),
    "a label that is none": (ARGMAX, largest(applied_labels=[7]), r"applied_labels \[7\]"),
    "a label of a text": (ARGMAX, largest(applied_labels="all"), "applied_labels 'all'"),
    "a copy of the answer": (step("CopyItemsd", "pred", names="kept"), "copies 'pred' to kept"),
    "an answer from elsewhere": (step("CopyItemsd", "kept", names="pred"), "makes the entry 'pred' from kept"),
    "a painting of another": (THRESHOLD, step("Lambdad", "pred", func=PAINTING.replace("x[[0]]", "y[[0]]")), "func"),
    "a painting thrown away": (THRESHOLD, step("Lambdad", "pred", func=PAINTING, overwrite=False), "function"),
    "a painting of no channel": (THRESHOLD, step("Lambdad", "pred", func=PAINTING.replace("[[0]]", "[[]]")), "func"),
    "a painting of None": (THRESHOLD, step("Lambdad", "pred", func=PAINTING.replace("[[0]]", "[None]")), "func"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_answer_that_cannot_be_read_as_monai_reads_it_is_refused_with_its_place(case):
    *transforms, message = REFUSALS[case]
    last = len(transforms) - 1
    with pytest.raises(ModelError, match=rf"inference.json: postprocessing.transforms\[{last}\]: \w+: .*{message}"):
        read(*transforms)


@pytest.mark.parametrize("transform", [SOFTMAX, ARGMAX])
def test_a_single_channel_has_nothing_to_compete_with(transform):
    with pytest.raises(ModelError, match="over a single channel is always"):
        read(transform, channels=1)


@pytest.mark.parametrize(
    ("transforms", "found"),
    [
        ((SOFTMAX, back(nearest_interp=False), ARGMAX), {"back": "linear"}),
        ((SOFTMAX, back(nearest_interp=True), ARGMAX), {"back": "nearest"}),
        ((SOFTMAX, back(), ARGMAX), {"back": "nearest"}),  # MONAI's default
        ((SOFTMAX, ARGMAX, back(to_tensor=False, device="cpu")), {"back": "nearest"}),
        (
            (ARGMAX, largest(applied_labels=2), back()),
            {"back": "nearest", "largest": [2], "largest_first": True, "activation": "none"},
        ),
        ((SOFTMAX, back(), ARGMAX, largest()), {"back": "nearest", "largest": [1, 2]}),
        ((SOFTMAX, ARGMAX, largest(applied_labels=[0, 1], connectivity=3)), {"largest": [1]}),
        ((step("AsDiscreted", ["pred", "label"], argmax=[True, False]),), {"activation": "none"}),
    ],
)
def test_the_order_of_the_transforms_says_where_labels_are_decided(transforms, found):
    expected = {"activation": "softmax", "decision": "argmax", "back": "linear"} | found
    assert read(*transforms) == (expected, [])


def test_labels_whose_numbers_a_bundle_would_interpolate_are_looked_up_and_the_card_says_so():
    found, notes = read(ARGMAX, back(nearest_interp=False))
    assert found["back"] == "nearest"
    assert "interpolates the numbers of its labels" in notes[0]


@pytest.mark.parametrize("largest_first", [True, False])
@pytest.mark.parametrize("applied", [None, [2]])
def test_the_largest_parts_are_those_that_monai_keeps(applied, largest_first):
    torch.manual_seed(3)
    channels = torch.nn.functional.avg_pool3d(torch.randn(3, 28, 30, 26), 5, 1)
    grid = Grid.from_axes((24, 26, 22), (1, 1, 1))
    kept = tuple(applied or (1, 2))
    ours = labels_on(
        grid, channels.clone(), grid, Answer("none", "argmax", 0.5, "nearest", (), kept, largest_first), lambda s: None
    )
    decided = channels.argmax(dim=0, keepdim=True)
    theirs = KeepLargestConnectedComponent(applied_labels=applied)(decided.clone())[0].numpy()
    assert (theirs != decided[0].numpy()).sum() > 20
    assert np.array_equal(ours, theirs)


def test_the_largest_part_can_be_chosen_before_the_labels_are_brought_back():
    source, target = Grid.from_axes((1, 1, 7), (1, 1, 1)), Grid.from_axes((1, 1, 3), (1, 1, 1), (4, 0, 0))
    present = torch.tensor([1.0, 1, 1, 0, 0, 0, 1])[None, None]
    channels = torch.stack([0.5 - present, present - 0.5])
    for largest_first, expected in ((True, [0, 0, 0]), (False, [0, 0, 1])):
        rule = Answer("none", "argmax", 0.5, "nearest", (), (1,), largest_first)
        assert labels_on(target, channels.clone(), source, rule, lambda s: None)[0, 0].tolist() == expected


@pytest.mark.parametrize("threshold", [0.0, -3.0])
@pytest.mark.parametrize("back", ["linear", "nearest"])
def test_what_the_network_never_saw_gets_no_label_whatever_the_threshold(threshold, back):
    scan = Grid.from_axes((10, 10, 10), (2, 2, 2))
    seen = scan.cropped((3, 2, 4), (4, 5, 3))
    channels = torch.ones(2, 4, 5, 3)
    labels = labels_on(scan, channels, seen, Answer("none", "threshold", threshold, back), lambda s: None)
    assert (labels[3:7, 2:7, 4:7] > 0).all()
    assert (labels > 0).sum() == 4 * 5 * 3


def test_boxes_that_a_bundle_changes_further_are_refused():
    _, config, _ = nodule_detection()
    check_boxes(Config(config, "inference.json"))
    config["postprocessing"]["transforms"].append(step("ZoomBoxd", "image", box_keys="box", zoom=2))
    with pytest.raises(ModelError, match=r"postprocessing.transforms\[2\]: ZoomBoxd: .*not mapped for boxes"):
        check_boxes(Config(config, "inference.json"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", {"data": "$[torch.randn(64) for i in range(9)]"}, r"dataset.data: .*randn.* is not mapped"),
        ("postprocessing", compose(SOFTMAX), "postprocessing: .*softmax.* is not mapped for made images"),
        ("postprocessing", compose(SIGMOID, THRESHOLD), "postprocessing: .*threshold.* is not mapped for made images"),
    ],
)
def test_images_that_are_drawn_or_read_in_another_way_are_not_made(key, value, message):
    _, config, _ = mednist_gan()
    assert made_images(Config(config, "inference.json"))["activation"] == "sigmoid"
    with pytest.raises(ModelError, match=message):
        made_images(Config({**config, key: value}, "inference.json"))
