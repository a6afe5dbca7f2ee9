from __future__ import annotations

import pytest
import torch

from tests.models.zoo_bundles import loader, spleen
from tomolens.core.errors import ModelError
from tomolens.models.import_checkpoint import checkpoint
from tomolens.models.import_config import Config
from tomolens.models.import_weights import read_weights


@pytest.fixture
def root(tmp_path):
    """A bundle's folder with one checkpoint."""
    folder = tmp_path / "theirs"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


def chosen(root, path, **more):
    _, config, _ = spleen()
    config["checkpointloader"] = {**loader(path), **more}
    return checkpoint(root, Config(config, "inference.json"))


PATHS = {
    "missing": ("models/none.pt", "the bundle holds no such file"),
    "a folder": ("models/", "that is a folder"),
    "elsewhere": ("/etc/hostname", "lies outside the bundle"),
    "above": ("../secret.pt", "lies outside the bundle"),
    "above its models": ("models/../../secret.pt", "lies outside the bundle"),
    "too long": ("models/" + "x" * 300, "cannot be read"),
    "no path": ("models/a\0b.pt", "cannot be read"),
    "in a circle": ("models/circle.pt", "cannot be read|no such file"),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_checkpoint_that_cannot_be_read_is_refused_with_its_place(root, case):
    path, message = PATHS[case]
    (root.parent / "secret.pt").write_bytes(b"secret")
    (root / "models" / "circle.pt").symlink_to("circle.pt")
    with pytest.raises(
        ModelError, match=rf"inference.json: checkpointloader.load_path: the checkpoint is .*({message})"
    ):
        chosen(root, path)


def test_a_checkpoint_that_may_not_be_read_is_refused(root, monkeypatch):
    def forbidden(*_args, **_words):
        raise PermissionError(13, "Permission denied")

    file, _ = chosen(root, "models/model.pt")
    monkeypatch.setattr("pathlib.Path.open", forbidden)
    with pytest.raises(ModelError, match=r"model\.pt cannot be read as weights: Permission denied"):
        read_weights(file)


@pytest.mark.parametrize("path", ["$os.path.join(@bundle_root, 'models', 'model.pt')", "$best()", None, 3])
def test_words_that_are_not_understood_may_mean_the_only_weights_that_there_are(root, path):
    assert chosen(root, path)[0].name == "model.pt"
    (root / "models" / "model_lowres.pt").write_bytes(b"others")
    with pytest.raises(ModelError, match=r"load_path: .* is not evaluated, and models holds model.pt, model_lowres.pt"):
        chosen(root, path)


def test_safetensors_stand_for_the_checkpoint_of_their_own_name_alone(root):
    (root / "models" / "model.pt").rename(root / "models" / "model.safetensors")
    assert chosen(root, "models/model.pt")[0].name == "model.safetensors"
    with pytest.raises(ModelError, match=r"model_lowres\.pt'; the bundle holds no such file"):
        chosen(root, "models/model_lowres.pt")


def test_the_name_under_which_a_bundle_keeps_its_network_is_the_one_that_is_read(root):
    file, names = chosen(root, "models/model.pt", load_dict={"ema": "@network", "optimizer": "$adam()"})
    assert names == ("ema",)
    torch.save({"model": {"w": torch.zeros(2)}, "ema": {"w": torch.ones(2)}}, file)
    assert read_weights(file, names)["w"].tolist() == [1, 1]
    assert read_weights(file)["w"].tolist() == [0, 0]


def test_two_loaders_of_different_files_leave_open_which_weights_count(root):
    _, config, _ = spleen()
    config |= {"checkpointloader": loader("models/model.pt"), "handlers": [loader("models/fine_tuned.pt")]}
    with pytest.raises(ModelError, match=r"checkpointloader and .*handlers\[0\] load different files"):
        checkpoint(root, Config(config, "inference.json"))
    config["handlers"] = [loader("models/model.pt")]
    assert checkpoint(root, Config(config, "inference.json"))[0].name == "model.pt"


def test_a_loader_that_is_switched_off_is_passed_over(root):
    _, config, _ = spleen()
    config["checkpointloader"] = {**loader("models/none.pt"), "_disabled_": True}
    config["handlers"] = [loader("models/model.pt")]
    assert checkpoint(root, Config(config, "inference.json"))[0].name == "model.pt"
    config["handlers"] = None
    assert checkpoint(root, Config(config, "inference.json"))[0].name == "model.pt"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.zeros(2, device="meta")}, "plain numbers are taken"),
        ({"w": torch.zeros(2, dtype=torch.float8_e5m2)}, "plain numbers are taken"),
        ({"w": torch.zeros(2), "module.w": torch.ones(2)}, "holds some weights twice"),
    ],
    ids=["no numbers at all", "eighths", "twice"],
)
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / "model.pt")
