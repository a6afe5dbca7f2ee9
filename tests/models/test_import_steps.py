from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import CropForeground, NormalizeIntensity, Resize, ScaleIntensityRange

from tests.models.zoo_bundles import compose, spleen, step
from tomolens.core.errors import ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Volume
from tomolens.models.import_config import Config
from tomolens.models.import_steps import check_taken_whole, preparation, windows
from tomolens.models.prepare import prepared


def config_of(*transforms, **more) -> Config:
    return Config({"preprocessing": compose(step("LoadImaged"), *transforms), **more}, "inference.json")


def steps_of(*transforms, dims=3):
    return preparation(config_of(*transforms), dims)[0]


def bright_box() -> Volume:
    """A lobed bright body near two faces of a scan whose axes are the patient's."""
    voxels = np.full((14, 18, 20), -50, np.int16)
    voxels[1:9, 4:16, 0:11] = np.random.default_rng(4).integers(1, 900, (8, 12, 11))
    return Volume(voxels, Grid.from_axes((14, 18, 20), (2, 2, 2)))


ELSEWHERE = {
    "a copy onto the image": (step("CopyItemsd", "raw", names="image"), "it makes the entry 'image' from raw"),
    "a copy of unknown name": (step("CopyItemsd", "raw", names="$f(x)"), "it makes the entry .* from raw"),
    "several joined to the image": (step("ConcatItemsd", ["t1", "t2"], name="image"), "the entry 'image' from t1, t2"),
    "the image joined to another": (step("ConcatItemsd", ["image", "t2"], name="image"), "the entry 'image' from"),
    "a function written over it": (step("Lambdad", "raw", func="$f", overwrite="image"), "the entry 'image' from raw"),
    "what nobody knows": (step("RandBiasFieldd", "raw"), "works on raw and is not known to leave 'image' alone"),
    "keys that cannot be read": (step("Spacingd", "$keys()", pixdim=[1, 1, 1]), "the entries that it changes"),
    "no keys": ({"_target_": "ScaleIntensityd"}, "the entries that it changes cannot be told"),
    "the bundle's own": (step("scripts.mine.ScaleIntensityd"), "this transform is not mapped"),
    "the bundle's own elsewhere": (step("scripts.mine.ScaleIntensityd", "raw"), "not known to leave 'image' alone"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_transform_of_another_entry_is_refused_unless_it_leaves_the_image_alone(case):
    transform, message = ELSEWHERE[case]
    with pytest.raises(ModelError, match=rf"inference.json: preprocessing.transforms\[1\]: .*{message}"):
        steps_of(transform)


def test_what_only_changes_the_truth_is_left_out():
    others = (step("Spacingd", "label", pixdim=[1, 1, 1]), step("CopyItemsd", "image", names="raw"))
    assert [s["do"] for s in steps_of(*others, step("ScaleIntensityd"))] == ["orient", "intensity"]


def test_a_bundle_that_prepares_its_image_under_another_name_is_refused():
    config = Config(
        {"preprocessing": compose(step("LoadImaged", "ct"), step("ScaleIntensityd", "ct"))}, "inference.json"
    )
    with pytest.raises(ModelError, match="preprocessing: no transform works on 'image', which the network reads"):
        preparation(config, 3)
    with pytest.raises(ModelError, match="no transform works on 'image'"):
        preparation(Config({}, "inference.json"), 3)


ARGUMENTS = {
    "labels of the axes": (step("Orientationd", axcodes="RAS", labels=[["R", "L"], ["P", "A"], ["I", "S"]]), "labels"),
    "closest to something": (step("Orientationd", axcodes="RAS", as_closest_canonical="$x"), "as_closest_canonical"),
    "no axes": (step("Orientationd", axcodes="RAX"), "axcodes 'RAX'"),
    "corners aligned": (step("Resized", spatial_size=[8] * 3, align_corners=True), "align_corners true is not mapped"),
    "smoothed": (step("Resized", spatial_size=[8] * 3, anti_aliasing=True), "anti_aliasing"),
    "the longest side": (step("Resized", spatial_size=8, size_mode="longest"), "size_mode"),
    "bicubic": (step("Resized", spatial_size=[8] * 3, mode="bicubic"), "mode 'bicubic' is not mapped"),
    "two sizes of three": (step("Resized", spatial_size=[8, 8]), "spatial_size"),
    "a size of a text": (step("Resized", spatial_size=["8", 8, 8]), "spatial_size"),
    "a monstrous size": (step("Resized", spatial_size=[60000] * 3), "spatial_size .* up to 2048"),
    "a monstrous resolution": (step("Spacingd", pixdim=[1e-6] * 3), "pixdim .* 0.05 to 100 mm"),
    "a monstrous number": (step("Spacingd", pixdim=[10**400, 1, 1]), "pixdim"),
    "half a margin": (step("CropForegroundd", source_key="image", margin=1.5), "margin is 1.5"),
    "padded by no number": (step("DivisiblePadd", k=None), "k is None"),
    "whole numbers": (step("CastToTyped", dtype="$torch.uint8"), r"dtype \$torch.uint8 is not mapped"),
    "half precision": (step("EnsureTyped", ["image"], dtype=["float16"]), "dtype 'float16' is not mapped"),
    "whole numbers at the end": (step("ScaleIntensityd", dtype="$np.uint8"), "dtype"),
    "what MONAI refuses": (step("ScaleIntensityRangePercentilesd", lower=-5, upper=99, b_min=0, b_max=1), "MONAI does"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_that_cannot_be_honoured_is_refused_with_its_place_and_value(case):
    transform, message = ARGUMENTS[case]
    with pytest.raises(ModelError, match=rf"inference.json: preprocessing.transforms\[1\]: \w+: .*{message}"):
        steps_of(transform)


def test_arguments_without_effect_are_taken():
    labels = [["L", "R"], ["P", "A"], ["I", "S"]]
    found = steps_of(
        step("Orientationd", axcodes="LPS", labels=labels, as_closest_canonical=False),
        step("Resized", spatial_size=[8] * 3, align_corners=None, anti_aliasing=False, size_mode="all"),
        step("EnsureTyped", dtype="$torch.float32"),
    )
    assert found == [
        {"do": "orient", "axcodes": "LPS"},
        {"do": "resize", "spatial_size": [8] * 3, "mode": "area"},
    ]
    assert steps_of(step("Orientationd", axcodes="LPS", as_closest_canonical=True))[0]["axcodes"] == "RAS"


@pytest.mark.parametrize("more", [{}, {"allow_smaller": True}, {"allow_smaller": False}])
@pytest.mark.parametrize("margin", [0, 3, [2, 0, 5]])
def test_a_foreground_is_cropped_as_monai_crops_it_beyond_the_image_too(margin, more):
    volume = bright_box()
    ours = prepared([volume], steps_of(step("CropForegroundd", source_key="image", margin=margin, **more))[1:])
    image = torch.from_numpy(volume.voxels.transpose(2, 1, 0).astype(np.float32))[None]
    theirs = CropForeground(margin=margin, **more)(image)
    assert torch.equal(ours.channels, theirs.as_tensor())
    brightest = ours.grid.to_mm(np.argwhere(ours.channels[0].numpy() == volume.voxels.max()))
    assert np.allclose(brightest, volume.grid.to_mm(np.argwhere(volume.voxels == volume.voxels.max())))


@pytest.mark.parametrize("mode", ["area", "nearest", "nearest-exact", "trilinear", "bilinear"])
def test_an_image_is_resized_as_monai_resizes_it(mode):
    volume = bright_box()
    ours = prepared([volume], steps_of(step("Resized", spatial_size=[9, 18, 21], mode=mode))[1:])
    image = torch.from_numpy(volume.voxels.transpose(2, 1, 0).astype(np.float32))[None]
    assert torch.allclose(ours.channels, Resize([9, 18, 21], mode=mode)(image).as_tensor(), atol=1e-3)


def test_numbers_are_changed_as_monai_changes_them():
    volume = bright_box()
    window = {"a_min": -20, "a_max": 500, "b_min": 0.0, "b_max": 1.0, "clip": True}
    ours = prepared(
        [volume], steps_of(step("ScaleIntensityRanged", **window), step("NormalizeIntensityd", nonzero=True))[1:]
    )
    image = torch.from_numpy(volume.voxels.transpose(2, 1, 0).astype(np.float32))[None]
    assert torch.allclose(ours.channels, NormalizeIntensity(nonzero=True)(ScaleIntensityRange(**window)(image)))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("preprocessing", "lazy"), True, r"preprocessing.lazy: True is not mapped"),
        (("preprocessing", "_target_"), "OneOf", "preprocessing: OneOf is not mapped"),
        (("preprocessing", "transforms"), {"a": 1}, "a list of transforms is needed"),
    ],
)
def test_a_list_that_is_run_in_another_way_is_refused(place, value, message):
    _, config, _ = spleen()
    config[place[0]] = {**config[place[0]], place[1]: value}
    with pytest.raises(ModelError, match=message):
        preparation(Config(config, "inference.json"), 3)


def test_an_inferer_of_the_bundles_own_is_refused_though_it_bears_monais_name():
    _, config, _ = spleen()
    config["inferer"]["_target_"] = "scripts.SlidingWindowInferer"
    with pytest.raises(ModelError, match=r"inferer: scripts\.SlidingWindowInferer: this inferer is not mapped"):
        windows(Config(config, "inference.json"), 3)


LOCAL = (
    step("Orientationd", axcodes="RAS"),
    step("Spacingd", pixdim=[1, 1, 1]),
    step("ScaleIntensityRanged", a_min=-1000, a_max=500, b_min=0, b_max=1, clip=True),
    step("ShiftIntensityd", offset=-0.5),
    step("ThresholdIntensityd", threshold=0.0),
    step("NormalizeIntensityd", subtrahend=0.2, divisor=0.1),
)
WHOLE = (
    step("NormalizeIntensityd", nonzero=True),
    step("NormalizeIntensityd", subtrahend=0.2),
    step("ScaleIntensityd"),
    step("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=0, b_max=1),
    step("ClipIntensityPercentilesd", lower=1, upper=99),
    step("Resized", spatial_size=[64] * 3),
    step("CropForegroundd", source_key="image"),
    step("DivisiblePadd", k=16),
)


@pytest.mark.parametrize("transform", WHOLE, ids=lambda transform: transform["_target_"])
def test_a_step_that_depends_on_the_whole_scan_is_refused_for_a_detector_which_sees_the_lungs_alone(transform):
    assert preparation(config_of(*LOCAL, transform), 3)
    with pytest.raises(ModelError, match=r"transforms\[7\]: \w+: what it does depends on all of the image"):
        preparation(config_of(*LOCAL, transform), 3, lungs_only=True)


def test_the_steps_of_a_detector_give_on_a_part_of_a_scan_what_they_give_on_all_of_it():
    steps, _ = preparation(config_of(LOCAL[0], *LOCAL[2:]), 3, lungs_only=True)
    volume = bright_box()
    part = volume.cropped((2, 3, 4), (9, 10, 11))
    whole = prepared([volume], steps)
    i, j, k = np.rint(whole.grid.to_kji(prepared([part], steps).grid.to_mm((0, 0, 0)))).astype(int)
    assert torch.equal(prepared([part], steps).channels, whole.channels[:, i : i + 11, j : j + 10, k : k + 9])


LOADERS = {
    "whole numbers": ({"dtype": "$np.uint8"}, r"dtype \$np.uint8 is not mapped"),
    "small whole numbers": ({"dtype": ["int16"]}, "dtype 'int16' is not mapped"),
    "a reader of the bundle's own": ({"reader": "scripts.readers.MyReader"}, "the reader 'scripts.readers.MyReader'"),
    "its own under MONAI's name": ({"reader": "scripts.ITKReader"}, "the reader 'scripts.ITKReader'"),
    "arrays without a place": ({"reader": "NumpyReader"}, "the reader 'NumpyReader' is not mapped"),
    "pictures turned": ({"reader": "PILReader", "reverse_indexing": False}, "reverse_indexing False is not mapped"),
    "axes reversed": ({"reader": "ITKReader", "reverse_indexing": True}, "reverse_indexing True is not mapped"),
    "any reader's axes": ({"reverse_indexing": False}, "reverse_indexing False is not mapped"),
    "left and right": ({"reader": "itkreader", "affine_lps_to_ras": False}, "affine_lps_to_ras False is not mapped"),
    "turned when read": ({"as_closest_canonical": True}, "as_closest_canonical True is not mapped"),
    "rows and columns": ({"reader": "PydicomReader", "swap_ij": False}, "swap_ij False is not mapped"),
    "another axis of channels": ({"channel_dim": 0}, "channel_dim 0 is not mapped"),
    "colours": ({"converter": "$lambda image: image.convert('L')"}, "converter: the expression .* is not evaluated"),
    "anything else": ({"fname_regex": "even"}, "the argument fname_regex is not mapped"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_an_image_that_is_loaded_in_another_way_than_scans_are_read_is_refused(case):
    arguments, message = LOADERS[case]
    config = Config({"preprocessing": compose(step("LoadImaged", **arguments))}, "inference.json")
    with pytest.raises(ModelError, match=rf"inference.json: preprocessing.transforms\[0\]: LoadImaged: .*{message}"):
        preparation(config, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"reader": "ITKReader", "affine_lps_to_ras": True, "reverse_indexing": False, "series_meta": True},
        {"reader": "monai.data.NibabelReader", "as_closest_canonical": False, "dtype": "$np.float32"},
        {"reader": ["itkreader", "PydicomReader"], "image_only": False, "dtype": ["$torch.float32"]},
        {"reader": "PILReader", "reverse_indexing": True, "ensure_channel_first": True},
        {"reader": None, "dtype": None, "meta_key_postfix": "meta_dict", "simple_keys": True},
    ],
)
def test_the_usual_ways_to_load_an_image_are_taken(arguments):
    config = Config({"preprocessing": compose(step("LoadImaged", **arguments))}, "inference.json")
    assert preparation(config, 3)[0] == [{"do": "orient", "axcodes": "LPS"}]


@pytest.mark.parametrize(
    "inferer", [{"_target_": "SlidingWindowInferer", "roi_size": [16] * 3}, {"_target_": "scripts.TTA"}]
)
def test_what_is_taken_whole_is_refused_where_a_bundle_does_more(inferer):
    check_taken_whole(Config({"inferer": {"_target_": "monai.inferers.SimpleInferer"}}, "inference.json"))
    check_taken_whole(Config({}, "inference.json"))
    with pytest.raises(ModelError, match=f"inference.json: inferer: {inferer['_target_']}: this inferer is not mapped"):
        check_taken_whole(Config({"inferer": inferer}, "inference.json"))
