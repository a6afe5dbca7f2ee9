from __future__ import annotations

import pytest

from tests.models.zoo_bundles import compose, loader, nodule_detection, spleen, step
from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config
from tomolens.models.import_wiring import check_wiring


def check(values, task="segmentation", **more):
    """The check of a configuration with some keys exchanged; of an evaluator's those that are given."""
    evaluator = more.pop("evaluator", {})
    evaluator = {**values["evaluator"], **evaluator} if isinstance(evaluator, dict) else evaluator
    check_wiring(
        Config({**values, "other": compose(step("LoadImaged")), **more, "evaluator": evaluator}, "inference.json"), task
    )


WIRES = {
    "another preprocessing": ({"dataset": {"transform": "@other"}}, "dataset.transform: it is not the bundle's prep"),
    "another inferer": ({"evaluator": {"inferer": {"_target_": "SimpleInferer"}}}, "evaluator.inferer: it is not"),
    "another postprocessing": ({"evaluator": {"postprocessing": "@other"}}, "evaluator.postprocessing: it is not"),
    "other handlers": ({"evaluator": {"val_handlers": []}}, "evaluator.val_handlers: it is not the bundle's handlers"),
    "a batch of its own": ({"evaluator": {"prepare_batch": "$lambda b: b['ct']"}}, "evaluator.prepare_batch: .*'ct'"),
    "its own default batch": (
        {"evaluator": {"prepare_batch": "$scripts.default_prepare_batch"}},
        r"evaluator.prepare_batch: \$scripts.default_prepare_batch is not evaluated",
    ),
    "a wrapped network": (
        {"network": {"_target_": "scripts.swap.SwapChannels", "network": "@network_def"}},
        "network: .*scripts.swap.SwapChannels.* is not the network of network_def",
    ),
    "a network turned by a function": ({"network": "$scripts.swap.wrap(@network_def)"}, "network: .*scripts.swap.wrap"),
    "an evaluator's own network": (
        {"evaluator": {"network": "$scripts.swap.wrap(@network)"}},
        "evaluator.network: it is not the bundle's network, which alone is read: .*scripts.swap.wrap",
    ),
    "an evaluator of its own": (
        {"evaluator": {"_target_": "scripts.evaluator.TTAEvaluator"}},
        "evaluator: scripts.evaluator.TTAEvaluator is not mapped",
    ),
    "its own under MONAI's name": (
        {"evaluator": {"_target_": "scripts.SupervisedEvaluator"}},
        "evaluator: scripts.SupervisedEvaluator is not mapped",
    ),
    "an ensemble": ({"evaluator": {"_target_": "EnsembleEvaluator"}}, "evaluator: EnsembleEvaluator is not mapped"),
    "boxes' evaluator": (
        {"evaluator": {"_target_": "scripts.evaluator.DetectionEvaluator"}},
        "evaluator: scripts.evaluator.DetectionEvaluator is not mapped",
    ),
    "an evaluator that is made": ({"evaluator": "$scripts.make(@network)"}, "evaluator: scripts.make is not mapped"),
    "no evaluator": ({"evaluator": "$[x for x in y]"}, r"evaluator: \$\[x for x in y\] is not evaluated"),
    "its own iteration": (
        {"evaluator": {"iteration_update": "$scripts.tta.update"}},
        r"evaluator.iteration_update: \$scripts.tta.update is not mapped",
    ),
    "a network that is trained": ({"evaluator": {"mode": "train"}}, "evaluator.mode: 'train' is not mapped"),
    "whole batches": ({"evaluator": {"decollate": False}}, "evaluator.decollate: False is not mapped"),
    "another type": ({"evaluator": {"to_kwargs": {"dtype": "$torch.uint8"}}}, "evaluator.to_kwargs: .*torch.uint8"),
    "more that is required": (
        {"evaluator": {"_requires_": ["$setattr(@network, 'forward', None)"]}},
        "evaluator._requires_: .*setattr",
    ),
    "more transforms among the handlers": (
        {"handlers": [{"_target_": "PostProcessing", "transform": compose(step("FillHolesd", "pred"))}]},
        r"handlers\[0\]: PostProcessing is not mapped",
    ),
    "a handler of its own": (
        {"handlers": [{"_target_": "scripts.Smooth"}]},
        r"handlers\[0\]: scripts.Smooth is not mapped",
    ),
    "its own handler under MONAI's name": (
        {"handlers": [{"_target_": "scripts.StatsHandler"}]},
        r"handlers\[0\]: scripts.StatsHandler is not mapped",
    ),
    "the boxes' saver": (
        {"handlers": [{"_target_": "scripts.detection_saver.DetectionSaver"}]},
        r"handlers\[0\]: scripts.detection_saver.DetectionSaver is not mapped",
    ),
    "handlers that are made": ({"handlers": "$make(@network)"}, "handlers: a list of handlers is needed"),
    "a line of its own": (
        {"run": ["$scripts.infer.run(@network)"]},
        r"run: \$?'?\$scripts.infer.run\(@network\)'? is not run",
    ),
    "a line before": ({"initialize": ["$setattr(@network, 'forward', 1)"]}, "initialize: .*setattr"),
    "an old line": ({"evaluating": "$@evaluator.run() or @network.run()"}, "evaluating: .*@network.run"),
    "something to run": ({"run": [{"_target_": "scripts.Run"}]}, "run: .*scripts.Run.* is not run"),
}  # fmt: skip


@pytest.mark.parametrize("case", WIRES)
def test_a_bundle_that_runs_something_else_than_what_is_read_is_refused(case):
    more, message = WIRES[case]
    _, config, _ = spleen()
    with pytest.raises(ModelError, match=f"inference.json: {message}"):
        check(config, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"evaluator": {"_target_": "scripts.evaluator.TTAEvaluator"}}, "evaluator: scripts.evaluator.TTAEvaluator"),
        ({"evaluator": {"_requires_": "@other"}}, "evaluator._requires_"),
        (
            {
                "handlers": [
                    {"_target_": "scripts.detection_saver.DetectionSaver", "output_transform": "$lambda x: flip(x)"}
                ]
            },
            r"handlers\[0\]: output_transform: \$lambda x: flip\(x\) is more than the bundle's postprocessing",
        ),
    ],
)
def test_a_detectors_evaluator_and_saver_are_the_zoos_alone(more, message):
    _, config, _ = nodule_detection()
    check(config, "detection")
    with pytest.raises(ModelError, match=f"inference.json: {message}"):
        check(config, "detection", **more)


USUAL = {
    "prepare_batch": "$monai.engines.utils.default_prepare_batch",
    "mode": "$monai.utils.ForwardMode.EVAL",
    "decollate": True,
    "iteration_update": None,
    "network": "@network_def",
    "key_val_metric": {"val_mean_dice": {"_target_": "MeanDice"}},
    "amp_kwargs": {"dtype": "$torch.bfloat16"},
}


def test_the_usual_wiring_is_taken():
    _, config, _ = spleen()
    metrics = [loader(), {"_target_": "monai.handlers.MeanDice"}, {"_target_": "scripts.Own", "_disabled_": True}]
    check(config, evaluator=USUAL, handlers=metrics, finalize=["$@test_fp.close()"])
    check(config, network="@network_def", run="$@evaluator.run()", initialize=["$@checkpointloader(@evaluator)"])
    for key in ("evaluator", "handlers", "run", "initialize", "dataset"):
        config.pop(key)
    check_wiring(Config(config, "inference.json"), "segmentation")
