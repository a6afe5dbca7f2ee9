from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer, sliding_window_inference
from monai.transforms import Orientation
from safetensors.torch import load_file

from tests.models.zoo_bundles import PAINTING, ZOO, compose, loader, step, write_zoo_bundle, zipped
from tomolens.core.errors import ContractError, ModelError
from tomolens.core.grid import Grid
from tomolens.core.volume import Unit, Volume
from tomolens.models.generator import load_generator
from tomolens.models.image_classifier import load_image_classifier
from tomolens.models.import_bundle import Wish, import_bundle
from tomolens.models.inference import Backend
from tomolens.models.prepare import prepared
from tomolens.models.registry import Bundle
from tomolens.models.segmenter import Segmenter, load_segmenter
from tomolens.models.windowed import WindowedPass

CPU = Backend(torch.device("cpu"), torch.float32)
SEGMENTERS = [kind for kind in ZOO if kind.endswith("segmentation")]
WISH = Wish(modality="ES")


def imported(tmp_path, kind, change=None, wish=None):
    """The bundle written, then taken over: the authors' network, and our folder."""
    network = write_zoo_bundle(tmp_path / "theirs" / kind, kind, change)
    ours = tmp_path / "ours" / kind
    ours.mkdir(parents=True)
    import_bundle(tmp_path / "theirs" / kind, ours, wish or (WISH if "inbody" in kind else Wish()))
    return network, ours


def scan(modality: str = "CT", seed: int = 0) -> Volume:
    """Smooth random tissue on a grid that is neither square nor upright."""
    noise = np.random.default_rng(seed).normal(0, 400, (30, 44, 40)).astype(np.int16)
    grid = Grid.from_axes((30, 44, 40), (2.5, 1.7, 1.6), (10, -30, 500)).flipped(1).permuted((2, 0, 1))
    unit = Unit.HU if modality == "CT" else Unit.ARBITRARY
    return Volume(np.ascontiguousarray(noise[:, ::-1].transpose(2, 0, 1)), grid, unit, modality)


@pytest.mark.parametrize("kind", ZOO)
def test_every_layout_of_the_zoo_becomes_a_model_folder(tmp_path, kind):
    network, folder = imported(tmp_path, kind)
    bundle = Bundle.open(folder)
    weights = load_file(bundle.weights)
    assert bundle.card.name == kind
    assert bundle.card.task == {"detection": "detection", "gan": "generation"}.get(
        kind.split("_")[-1], kind.split("_")[-1]
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".json", ".safetensors", ".md", ""}
    assert (folder / "LICENSE").read_text() == (tmp_path / "theirs" / kind / "LICENSE").read_text()


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_our_windows_give_what_monais_sliding_window_gives_on_the_same_tensor(tmp_path, kind):
    network, folder = imported(tmp_path, kind)
    model = load_segmenter(folder, device="cpu")
    contract = model.card.input
    images = [scan(contract.modality, n) for n, _ in enumerate(contract.channels)]
    image, windows = prepared(images, model.recipe.steps).channels, model.recipe.windows
    ours = WindowedPass(model._network, windows, CPU, lambda step: None).over(image)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], windows.roi_size, windows.batch, network, windows.overlap, windows.mode,
            windows.sigma_scale, windows.padding_mode,
        )[0]  # fmt: skip
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_an_imported_segmenter_labels_a_scan_on_its_own_grid(tmp_path, kind):
    _, folder = imported(tmp_path, kind)
    model = load_segmenter(folder, device="cpu")
    images = [scan(model.card.input.modality, n) for n, _ in enumerate(model.card.input.channels)]
    labels, run = model.segment(images)
    assert labels.shape == images[0].shape
    assert set(np.unique(labels)) - {0} <= set(model.labels)
    assert any("not validated by the Tomolens project" in note for note in run.notes)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SRA"])
def test_a_scan_is_turned_as_monai_turns_it(axcodes):
    volume = scan()
    ours = prepared([volume], [{"do": "orient", "axcodes": axcodes}])
    ras = np.diag([-1.0, -1, 1, 1]) @ volume.grid.permuted((2, 1, 0)).affine
    array = torch.from_numpy(volume.voxels.transpose(2, 1, 0).astype(np.float32))[None]
    theirs = Orientation(axcodes=axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(
        MetaTensor(array, affine=torch.from_numpy(ras))
    )
    assert torch.equal(ours.channels, theirs.as_tensor())
    assert np.allclose(np.diag([-1.0, -1, 1, 1]) @ ours.grid.affine, theirs.affine.numpy())


@pytest.mark.parametrize("stated", [{"spatial_dim": 2}, {"spatial_dim": 1}, {}])
def test_a_2d_network_reads_slice_after_slice_as_monais_slice_inferer_does(tmp_path, stated):
    def in_slices(card, config):
        config["network_def"]["spatial_dims"] = 2
        config["inferer"] = {"_target_": "SliceInferer", "roi_size": [32, 32], **stated}
        config["preprocessing"] = compose(step("LoadImaged"), step("ScaleIntensityd"))

    from monai.networks.nets import UNet

    flat = UNet(2, 1, 2, [4, 8, 16], [2, 2], num_res_units=1, norm="batch").eval()
    write_zoo_bundle(tmp_path / "flat", "spleen_ct_segmentation", in_slices)
    torch.save({"model": flat.state_dict()}, tmp_path / "flat" / "models" / "model.pt")
    (tmp_path / "ours").mkdir()
    import_bundle(tmp_path / "flat", tmp_path / "ours")
    model = load_segmenter(tmp_path / "ours", device="cpu")
    image = prepared([scan()], model.recipe.steps).channels
    ours = WindowedPass(model._network, model.recipe.windows, CPU, lambda step: None).over(image)
    with torch.no_grad():
        theirs = SliceInferer(roi_size=(32, 32), **stated)(image[None], flat)[0]
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert model.segment(scan())[0].shape == scan().shape


def test_a_zip_is_taken_as_its_folder_is_and_its_hash_is_on_the_card(tmp_path):
    write_zoo_bundle(tmp_path / "spleen_ct_segmentation", "spleen_ct_segmentation")
    archive = zipped(tmp_path / "spleen_ct_segmentation", tmp_path / "spleen_ct_segmentation_v0.3.7.zip")
    (tmp_path / "ours").mkdir()
    card = import_bundle(archive, tmp_path / "ours")
    assert card.name == "spleen_ct_segmentation"
    assert "SHA-256" in card.origin
    assert "not validated by the Tomolens project" in card.origin
    assert "Imported: not validated" in card.intended_use
    assert card.figures == {"mean_dice (the authors')": 0.96}
    assert card.licence.startswith("Apache License")


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_checkpoints_of_trainers_and_safetensors_are_read_too(tmp_path, wrapper):
    from safetensors.torch import save_file

    network = write_zoo_bundle(tmp_path / "theirs", "spleen_ct_segmentation")
    file = tmp_path / "theirs" / "models" / "model.pt"
    if wrapper is None:
        file.unlink()
        save_file(network.state_dict(), file.with_suffix(".safetensors"))
    else:
        parallel = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({wrapper: parallel, "epoch": 3}, file)
    (tmp_path / "ours").mkdir()
    import_bundle(tmp_path / "theirs", tmp_path / "ours", Wish("spleen"))
    assert load_segmenter(tmp_path / "ours", device="cpu").labels == {1: "spleen"}


def test_the_switch_of_a_bundle_chooses_its_spacing_and_its_checkpoint(tmp_path):
    def low(card, config):
        config["displayable_configs"]["highres"] = False

    network = write_zoo_bundle(tmp_path / "theirs", "wholeBody_ct_segmentation", low)
    (tmp_path / "ours").mkdir()
    with pytest.raises(ModelError, match=r"checkpoint is 'models/model_lowres\.pt'; the bundle holds no such file"):
        import_bundle(tmp_path / "theirs", tmp_path / "ours")
    torch.save(network.state_dict(), tmp_path / "theirs" / "models" / "model_lowres.pt")
    card = import_bundle(tmp_path / "theirs", tmp_path / "ours")
    assert [s["pixdim"] for s in card.recipe["steps"] if s["do"] == "space"] == [[3.0, 3.0, 3.0]]


def test_regions_are_named_for_what_their_label_shows(tmp_path):
    model = load_segmenter(imported(tmp_path, "brats_mri_segmentation")[1], device="cpu")
    assert model.labels == {
        2: "Whole tumor outside Tumor core and Enhancing tumor",
        1: "Tumor core outside Enhancing tumor",
        4: "Enhancing tumor",
    }
    with pytest.raises(ContractError, match=r"reads 4 images .* T1c, T1, T2, FLAIR; 1 were given"):
        model.segment(scan("MR"))


def test_a_region_is_painted_over_another_as_the_bundle_says(tmp_path):
    _, folder = imported(tmp_path, "brats_mri_segmentation")
    card = replace(
        Bundle.open(folder).card,
        recipe={"answer": {"activation": "none", "decision": "threshold", "paint": [[1, 2], [0, 1], [2, 4]]}},
    )

    class Answers(torch.nn.Module):
        def forward(self, image):
            return image[:, :3]

    images = [scan("MR", n).with_voxels((scan("MR", n).voxels > 300).astype(np.int16), "") for n in range(4)]
    labels, _ = Segmenter(card, Answers(), "", CPU).segment(images)
    core, whole, enhancing = (image.voxels > 0 for image in images[:3])
    truth = torch.where(
        torch.tensor(enhancing), 4, torch.where(torch.tensor(core), 1, torch.where(torch.tensor(whole), 2, 0))
    )
    assert PAINTING.count("torch.where") == 3
    assert np.array_equal(labels, truth.numpy())


def test_a_classifier_gives_a_probability_for_each_class_by_name(tmp_path):
    network, folder = imported(tmp_path, "densenet_classification")
    model = load_image_classifier(folder, device="cpu")
    volume = scan()
    found = model.classify(volume)
    image = prepared([volume], model._recipe.steps).channels[None]
    with torch.no_grad():
        truth = network(image).softmax(dim=1)[0]
    assert list(found) == ["usual", "probable", "indeterminate"]
    assert list(found.values()) == pytest.approx(truth.tolist(), abs=1e-5)


def test_a_classifier_of_pictures_reads_one_slice_of_each_colour(tmp_path):
    _, folder = imported(tmp_path, "endoscopic_inbody_classification")
    model = load_image_classifier(folder, device="cpu")
    draw = np.random.default_rng(0).integers(0, 255, (3, 1, 50, 60)).astype(np.int16)
    pictures = [Volume(colour, Grid.from_axes((1, 50, 60)), Unit.ARBITRARY, "ES") for colour in draw]
    assert sum(model.classify(pictures).values()) == pytest.approx(1)
    thick = [Volume(np.zeros((5, 50, 60), np.int16), Grid.from_axes((5, 50, 60)), Unit.ARBITRARY, "ES")] * 3
    with pytest.raises(ContractError, match="reads one slice, not 5"):
        model.classify(thick)


def test_a_generator_makes_the_same_images_from_the_same_seed(tmp_path):
    network, folder = imported(tmp_path, "mednist_gan")
    model = load_generator(folder, device="cpu")
    images = model.generate(seed=3, n=2)
    with torch.no_grad():
        truth = network(torch.rand(2, 16, generator=torch.Generator().manual_seed(3))).sigmoid()
    assert np.allclose(images, truth.numpy(), atol=1e-6)
    assert np.array_equal(images, model.generate(seed=3, n=2))
    assert not np.array_equal(images, model.generate(seed=4, n=2))


def test_the_python_of_a_bundle_is_no_modality_and_one_can_be_said(tmp_path):
    write_zoo_bundle(tmp_path / "theirs", "endoscopic_inbody_classification")
    (tmp_path / "ours").mkdir()
    with pytest.raises(ModelError, match=r"inputs\.image\.modality is 'regular'.*--modality"):
        import_bundle(tmp_path / "theirs", tmp_path / "ours")


def _with_step(*steps):
    def change(card, config):
        config["preprocessing"]["transforms"][3:3] = steps

    return change


def _after(*steps):
    def change(card, config):
        config["postprocessing"]["transforms"][1:1] = steps

    return change


def _set(place, value):
    def change(card, config):
        *path, last = place
        for part in path:
            config = config[part]
        config[last] = value

    return change


REFUSALS = {
    "a transform that is not known": (
        _with_step(step("RandBiasFieldd")),
        r"inference.json: preprocessing.transforms\[3\]: RandBiasFieldd: this transform is not mapped",
    ),
    "an argument that is not known": (
        _with_step(step("ScaleIntensityd", minv=0, shape="round")),
        r"preprocessing.transforms\[3\]: ScaleIntensityd: the argument shape is not mapped",
    ),
    "an expression where a number is needed": (
        _with_step(step("ShiftIntensityd", offset="$__import__('os').system('true')")),
        r"preprocessing.transforms\[3\]: ShiftIntensityd: offset: the expression .*is not evaluated",
    ),
    "arithmetic": (
        _with_step(step("ShiftIntensityd", offset="$1000 + 24")),
        r"transforms\[3\]: ShiftIntensityd: offset: the expression '\$1000 \+ 24' is not evaluated",
    ),
    "a function over the answer": (
        _after(step("Lambdad", "pred", func="$lambda x: x.sum()")),
        r"postprocessing.transforms\[1\]: Lambdad: the function .* is not evaluated",
    ),
    "filled holes": (_after(step("FillHolesd", "pred")), r"postprocessing.transforms\[1\]: FillHolesd: .*not mapped"),
    "an answer that nothing reads": (
        _set(["postprocessing"], compose(step("Activationsd", "pred", softmax=True))),
        "postprocessing: nothing says how channels become labels",
    ),
    "a network of the bundle's own": (
        _set(["network_def", "_target_"], "scripts.networks.MyNet"),
        r"network_def: scripts.networks.MyNet is the bundle's own code",
    ),
    "a network that is not known": (
        _set(["network_def", "_target_"], "DiffusionModelUNet"),
        "network_def: the network DiffusionModelUNet is not mapped",
    ),
    "an argument that the network has not": (
        _set(["network_def", "depth"], 4),
        "network_def: MONAI's UNet has no argument 'depth'",
    ),
    "a monstrous network": (
        _set(["network_def", "channels"], [10**9, 10**9]),
        "channels is 1000000000; numbers up to 65536",
    ),
    "a large network with small weights": (
        _set(["network_def", "channels"], [60000, 60000, 60000]),
        "does not hold the weights of this network: .*has other shapes",
    ),
    "an inferer of the bundle's own": (
        _set(["inferer", "_target_"], "scripts.MyInferer"),
        "inferer: scripts.MyInferer: this inferer is not mapped",
    ),
    "a circle of references": (_set(["network_def"], "@network"), "references .* go round in a circle"),
    "a reference to nothing": (_set(["network_def"], "@nets#3"), "there is no such key"),
    "a checkpoint outside of the bundle": (
        _set(["checkpointloader"], loader("models/../../../secret.pt")),
        "lies outside the bundle",
    ),
    "a first channel that is no background": (
        lambda card, config: card["network_data_format"]["outputs"]["pred"].update(channel_def={"0": "liver"}),
        "channel 0 is 'liver'",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_mapped_is_refused_with_its_place_and_reason(tmp_path, case):
    change, message = REFUSALS[case]
    (tmp_path / "secret.pt").write_bytes(b"secret")
    write_zoo_bundle(tmp_path / "a" / "theirs", "spleen_ct_segmentation", change)
    (tmp_path / "ours").mkdir()
    with pytest.raises(ModelError, match=message):
        import_bundle(tmp_path / "a" / "theirs", tmp_path / "ours")
    assert not list((tmp_path / "ours").iterdir())


def test_a_detectors_card_says_that_it_searches_the_lungs_alone(tmp_path):
    _, folder = imported(tmp_path, "lung_nodule_ct_detection")
    assert "searched with in the lungs only" in Bundle.open(folder).card.origin
    with pytest.raises(ModelError, match=r"transforms\[7\]: NormalizeIntensityd: .*the box around the lungs"):
        imported(
            tmp_path / "again",
            "lung_nodule_ct_detection",
            lambda card, config: config["preprocessing"]["transforms"].append(step("NormalizeIntensityd")),
        )


@pytest.mark.parametrize("kind", ["densenet_classification", "mednist_gan"])
def test_an_inferer_that_does_more_than_to_show_the_whole_image_is_refused_for_classes_and_made_images(tmp_path, kind):
    with pytest.raises(ModelError, match=r"inferer: scripts\.tta\.Flips: this inferer is not mapped"):
        imported(tmp_path, kind, _set(["inferer"], {"_target_": "scripts.tta.Flips"}))


def test_a_network_that_needs_einops_is_refused_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("tomolens.models.monai_networks.find_spec", lambda name: None)
    write_zoo_bundle(tmp_path / "theirs", "swin_unetr_btcv_segmentation")
    (tmp_path / "ours").mkdir()
    with pytest.raises(ModelError, match="SwinUNETR needs the package einops: pip install einops"):
        import_bundle(tmp_path / "theirs", tmp_path / "ours")


def test_nothing_that_would_be_downloaded_is_asked_for(tmp_path):
    from tomolens.models.monai_networks import checked_arguments

    given = checked_arguments("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True})
    assert given["pretrained"] is False


def test_a_network_of_yaml_or_without_a_configuration_is_refused(tmp_path):
    write_zoo_bundle(tmp_path / "theirs", "spleen_ct_segmentation")
    (tmp_path / "theirs" / "configs" / "inference.json").rename(tmp_path / "theirs" / "configs" / "inference.yaml")
    (tmp_path / "ours").mkdir()
    with pytest.raises(ModelError, match=r"no inference.json \(it has inference.yaml, metadata.json\); YAML"):
        import_bundle(tmp_path / "theirs", tmp_path / "ours")


def test_a_card_that_was_written_can_be_read_back(tmp_path):
    _, folder = imported(tmp_path, "wholeBody_ct_segmentation")
    written = json.loads((folder / "configs" / "metadata.json").read_text())
    assert written["tomolens"]["labels"] == {"1": "spleen", "2": "kidney_right", "3": "kidney_left", "4": "gallbladder"}
    assert written["monai_version"] == "1.2.0"
