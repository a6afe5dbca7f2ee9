"""Bundles in the layout of MONAI's public model zoo, tiny and with untrained weights, for tests.

The configurations are written here after the zoo's layout: the same keys, references and expressions, other sizes.
"""

from __future__ import annotations

import json
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.networks import nets
from torch import nn

DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"


EVALUATOR = {
    "_target_": "SupervisedEvaluator",
    "device": "@device",
    "val_data_loader": "@dataloader",
    "network": "@network",
    "inferer": "@inferer",
    "val_handlers": "@handlers",
}


def loader(path: str = "$@bundle_root + '/models/model.pt'") -> dict[str, Any]:
    return {"_target_": "CheckpointLoader", "load_path": path, "load_dict": {"model": "@network"}}


def compose(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def step(target: str, keys: Any = "image", **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": keys, **arguments}


def metadata(modality: str = "CT", channels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    outputs = {"type": "image", "format": "segmentation", "channel_def": channels or {"0": "background", "1": "spleen"}}
    inputs = {
        "type": "image",
        "format": "hounsfield",
        "modality": modality,
        "channel_def": more.pop("images", {"0": "image"}),
    }
    return {
        "version": "0.3.7",
        "changelog": {"0.3.7": "first"},
        "monai_version": "1.2.0",
        "task": "a test",
        "description": "A tiny bundle",
        "authors": "the test",
        "data_source": "random numbers",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "eval_metrics": {"mean_dice": 0.96},
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": outputs}},
        **more,
    }


def segmentation_config(network: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As the zoo's spleen_ct_segmentation."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data/Task09_Spleen",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": DEVICE,
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": compose(
            step("LoadImaged"),
            step("EnsureChannelFirstd"),
            step("Orientationd", axcodes="RAS"),
            step("Spacingd", pixdim=[1.5, 1.5, 2.0], mode="bilinear"),
            step("ScaleIntensityRanged", a_min=-57, a_max=164, b_min=0, b_max=1, clip=True),
            step("EnsureTyped"),
        ),
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": compose(
            step("Activationsd", "pred", softmax=True),
            step(
                "Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=False, to_tensor=True
            ),
            step("AsDiscreted", "pred", argmax=True),
            step("SaveImaged", "pred", output_dir="@output_dir"),
        ),
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False},
        "evaluator": {**EVALUATOR, "postprocessing": "@postprocessing", "amp": True},
        "checkpointloader": loader(),
        "load_pretrain": True,
        "initialize": [
            "$monai.utils.set_determinism(seed=123)",
            "$setattr(torch.backends.cudnn, 'benchmark', True)",
            "$@checkpointloader(@evaluator) if @load_pretrain else None",
        ],
        "run": ["$@evaluator.run()"],
        **more,
    }


UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}


def spleen() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    arguments = {key: value for key, value in UNET.items() if key != "_target_"}
    return metadata(), segmentation_config(UNET), nets.UNet(**arguments)


def whole_body() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """SegResNet; a switch chooses spacing and checkpoint, labels are decided before they are brought back."""
    network = {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 5,
        "init_filters": 8,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "dropout_prob": 0.2,
    }
    config = segmentation_config(
        network,
        displayable_configs={"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1},
        image_key="image",
        pixdim="$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
        modelname="$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        preprocessing=compose(
            step("LoadImaged", "@image_key"),
            step("EnsureTyped", "@image_key"),
            step("EnsureChannelFirstd", "@image_key"),
            step("Orientationd", "@image_key", axcodes="RAS"),
            step("Spacingd", "@image_key", pixdim="@pixdim", mode="bilinear"),
            step("NormalizeIntensityd", "@image_key", nonzero=True),
            step("ScaleIntensityd", "@image_key", minv=-1.0, maxv=1.0),
        ),
        inferer={
            "_target_": "SlidingWindowInferer",
            "roi_size": [32, 32, 32],
            "sw_batch_size": "@displayable_configs#sw_batch_size",
            "overlap": "@displayable_configs#sw_overlap",
            "padding_mode": "replicate",
            "mode": "gaussian",
            "device": DEVICE,
        },
        postprocessing=compose(
            step("Activationsd", "pred", softmax=True),
            step("AsDiscreted", "pred", argmax=True),
            step("Invertd", "pred", transform="@preprocessing", orig_keys="@image_key", nearest_interp=True),
            step("SaveImaged", "pred", output_dir="@output_dir"),
        ),
        checkpointloader=loader("$@bundle_root + '/models/' + @modelname"),
    )
    names = {"0": "background", "1": "spleen", "2": "kidney_right", "3": "kidney_left", "4": "gallbladder"}
    built = nets.SegResNet(init_filters=8, out_channels=5, blocks_down=(1, 1), blocks_up=(1,), dropout_prob=0.2)
    return metadata(channels=names), config, built


PAINTING = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"


def brats() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """Four MR images in, three regions that overlap out, painted over each other by a function."""
    network = {
        "_target_": "SegResNet",
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "init_filters": 8,
        "in_channels": 4,
        "out_channels": 3,
        "dropout_prob": 0.2,
    }
    config = segmentation_config(
        network,
        preprocessing=compose(step("LoadImaged"), step("NormalizeIntensityd", nonzero=True, channel_wise=True)),
        inferer={"_target_": "SlidingWindowInferer", "roi_size": [48, 48, 32], "sw_batch_size": 1, "overlap": 0.5},
        postprocessing=compose(
            step("Activationsd", "pred", sigmoid=True),
            step("Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=False),
            step("AsDiscreted", "pred", threshold=0.5),
            step("Lambdad", "pred", func=PAINTING),
            step("SaveImaged", "pred", output_dir="@output_dir"),
        ),
        handlers=[loader(), {"_target_": "StatsHandler", "iteration_log": False}],
    )
    config.pop("checkpointloader")
    card = metadata(
        modality="MR",
        images={"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"},
        channels={"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"},
    )
    built = nets.SegResNet(
        init_filters=8, in_channels=4, out_channels=3, blocks_down=(1, 1), blocks_up=(1,), dropout_prob=0.2
    )
    return card, config, built


def swin_unetr() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "feature_size": 12, "use_checkpoint": False}
    network = {"_target_": "SwinUNETR", "img_size": 96, **arguments}  # img_size: gone from MONAI, still in the zoo
    names = {"0": "background", "1": "spleen", "2": "Right Kidney"}
    config = segmentation_config(
        network, inferer={"_target_": "SlidingWindowInferer", "roi_size": [64] * 3, "sw_batch_size": 1, "overlap": 0.0}
    )
    return metadata(channels=names), config, nets.SwinUNETR(**arguments)


def dyn_unet() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    arguments = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 1]],
        "upsample_kernel_size": [[2, 2, 2], [2, 2, 1]],
        "filters": [4, 8, 16],
        "norm_name": "INSTANCE",
        "deep_supervision": False,
        "res_block": True,
    }
    return metadata(), segmentation_config({"_target_": "DynUNet", **arguments}), nets.DynUNet(**arguments)


def inbody() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """A 2D SEResNet of colour pictures, as the zoo's endoscopic_inbody_classification; "regular" is no modality."""
    arguments = {"spatial_dims": 2, "in_channels": 3, "num_classes": 2, "layers": [1, 1, 1, 1]}
    config = segmentation_config(
        {"_target_": "SEResNet50", **arguments},
        image_key="image",
        preprocessing=compose(
            step("LoadImaged", image_only=False),
            step("EnsureChannelFirstd", channel_dim=-1),
            step("Resized", spatial_size=[32, 32], mode="bilinear"),
            step("CastToTyped", dtype="$torch.float32"),
            step("NormalizeIntensityd", nonzero=True, channel_wise=True),
            step("EnsureTyped"),
        ),
        inferer={"_target_": "SimpleInferer"},
        postprocessing=compose(
            step("AsDiscreted", ["pred"], argmax=True, to_onehot=2),
            step("SaveClassificationd", "pred", meta_keys="$@image_key + '_meta_dict'", filename="predictions.csv"),
        ),
        test_fp="$open('test_samples.json', 'r', encoding='utf8')",
        finalize=["$@test_fp.close()"],
    )
    colours = {"0": "R", "1": "G", "2": "B"}
    card = metadata(modality="regular", images=colours, channels={"0": "in body", "1": "out body"})
    return card, config, nets.SEResNet50(**arguments)


def dense_net() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    arguments = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [1, 1],
    }
    config = segmentation_config(
        {"_target_": "monai.networks.nets.DenseNet", **arguments},
        preprocessing=compose(
            step("LoadImaged"),
            step("EnsureChannelFirstd"),
            step("Orientationd", axcodes="LPS"),
            step("Resized", spatial_size=[24, 24, 24]),
            step("ScaleIntensityd"),
        ),
        inferer={"_target_": "SimpleInferer"},
        postprocessing=compose(step("Activationsd", "pred", softmax=True)),
    )
    names = {"0": "usual", "1": "probable", "2": "indeterminate"}
    return metadata(channels=names), config, nets.DenseNet(**arguments)


def mednist_gan() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    arguments = {"latent_shape": 16, "start_shape": [8, 4, 4], "channels": [8, 4, 1], "strides": [2, 2, 1]}
    config = {
        "bundle_root": ".",
        "device": DEVICE,
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "latent_size": 16,
        "num_samples": 10,
        "network_def": {"_target_": "Generator", **arguments, "latent_shape": "@latent_size"},
        "network": "$@network_def.to(@device)",
        "dataset": {"_target_": "Dataset", "data": "$[torch.rand(@latent_size) for i in range(@num_samples)]"},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": compose(
            step("Activationsd", "pred", sigmoid=True), step("SaveImaged", "pred", output_ext="png")
        ),
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False},
        "handlers": [loader("@ckpt_path")],
        "evaluator": {
            **EVALUATOR,
            "postprocessing": "@postprocessing",
            "prepare_batch": "$lambda batchdata, *_,**__: (batchdata.to(@device),None,(),{})",
        },
        "inferring": ["$@evaluator.run()"],
    }
    return metadata(channels={"0": "image"}), config, nets.Generator(**arguments)


RETINA_WORDS = "spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1],conv1_t_size=[7,7,7],widen_factor=0.125"


def nodule_detection() -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """As the zoo's lung_nodule_ct_detection; resampling is switched off, operations of the detector are expressions."""
    from monai.apps.detection.networks.retinanet_network import RetinaNet

    from tomolens.models.retina_net import ResNetPyramid

    config = {
        "whether_raw_luna16": False,
        "whether_resampled_luna16": "$(not @whether_raw_luna16)",
        "bundle_root": "./",
        "device": DEVICE,
        "amp": False,
        "infer_patch_size": [64, 64, 32],
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1, 2, 4],
            "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
        },
        "backbone": f"$monai.networks.nets.resnet.resnet10({RETINA_WORDS})",
        "feature_extractor": "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
        "@backbone,3,False,[1,2],None)",
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": 3,
            "num_classes": 1,
            "num_anchors": 3,
            "feature_extractor": "@feature_extractor",
            "size_divisible": [16, 16, 8],
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            "$@detector.set_box_selector_parameters(score_thresh=0.02,topk_candidates_per_level=1000,nms_thresh=0.22,"
            "detections_per_img=300)",
            "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,overlap=0.25,sw_batch_size=1,"
            "mode='constant',device='cpu')",
        ],
        "preprocessing": compose(
            step("LoadImaged", meta_key_postfix="meta_dict", _disabled_="@whether_raw_luna16"),
            step("LoadImaged", reader="itkreader", affine_lps_to_ras=True, _disabled_="@whether_resampled_luna16"),
            step("EnsureChannelFirstd", meta_key_postfix="meta_dict"),
            step("Orientationd", axcodes="RAS"),
            step("Spacingd", pixdim=[2.0, 2.0, 2.5], _disabled_="@whether_resampled_luna16"),
            step("ScaleIntensityRanged", a_min=-1024.0, a_max=300.0, b_min=0.0, b_max=1.0, clip=True),
            step("EnsureTyped"),
        ),
        "test_datalist": "$monai.data.load_decathlon_datalist('dataset_fold0.json', data_list_key='validation')",
        "dataset": {"_target_": "Dataset", "data": "$@test_datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False},
        "inferer": {
            "_target_": "scripts.detection_inferer.RetinaNetInferer",
            "detector": "@detector",
            "force_sliding_window": False,
        },
        "postprocessing": compose(
            {"_target_": "ClipBoxToImaged", "box_keys": "box", "label_keys": "label", "remove_empty": True},
            {"_target_": "AffineBoxToWorldCoordinated", "box_keys": "box", "affine_lps_to_ras": True},
        ),
        "handlers": [
            loader(),
            {
                "_target_": "scripts.detection_saver.DetectionSaver",
                "batch_transform": "$lambda x: [xx['image_meta_dict'] for xx in x]",
                "output_transform": "$lambda x: [@postprocessing({**xx['pred'],'image':xx['image']}) for xx in x]",
                "pred_box_key": "box",
            },
        ],
        "evaluator": {
            **EVALUATOR,
            "_target_": "scripts.evaluator.DetectionEvaluator",
            "_requires_": "@detector_ops",
            "amp": "@amp",
        },
        "evaluating": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$@evaluator.run()"],
    }
    body = nets.resnet10(
        spatial_dims=3, n_input_channels=1, conv1_t_stride=[2, 2, 1], conv1_t_size=[7, 7, 7], widen_factor=0.125
    )
    card = metadata()
    card["network_data_format"]["outputs"]["pred"] = {"type": "object", "format": "dict"}
    return card, config, RetinaNet(3, 1, 3, ResNetPyramid(body, 3, [1, 2]), [16, 16, 8])


ZOO = {
    "spleen_ct_segmentation": spleen,
    "wholeBody_ct_segmentation": whole_body,
    "brats_mri_segmentation": brats,
    "swin_unetr_btcv_segmentation": swin_unetr,
    "dynunet_segmentation": dyn_unet,
    "endoscopic_inbody_classification": inbody,
    "densenet_classification": dense_net,
    "mednist_gan": mednist_gan,
    "lung_nodule_ct_detection": nodule_detection,
}


def write_zoo_bundle(folder: Path, kind: str, change: Any = None) -> nn.Module:
    """The folder of a zoo bundle of that name; ``change(metadata, inference)`` may alter it. Its network."""
    torch.manual_seed(1)
    card, config, network = ZOO[kind]()
    card, config = deepcopy((card, config))
    if change is not None:
        change(card, config)
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(card))
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "docs" / "README.md").write_text("# Their words\n")
    (folder / "LICENSE").write_text("\n  Apache License\n  Version 2.0\n")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return network.eval()


def zipped(folder: Path, archive: Path) -> Path:
    """The folder as the zoo packs it: below its own name."""
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(part for part in folder.rglob("*") if part.is_file()):
            opened.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return archive
