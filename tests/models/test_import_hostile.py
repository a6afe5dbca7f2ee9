"""Bundles made to do harm, or broken: each is refused, and nothing of them runs or is written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import stat
import struct
import warnings
import zipfile
from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch

from tests.models.zoo_bundles import ZOO, write_zoo_bundle, zipped
from tomolens.core.errors import ModelError
from tomolens.io.atomic import whole_folder
from tomolens.models.import_archive import unpack
from tomolens.models.import_bundle import Wish, import_bundle
from tomolens.models.import_config import Config, Unknown, read_json
from tomolens.models.import_weights import read_weights


@pytest.fixture
def theirs(tmp_path):
    """A sound bundle, to be spoilt."""
    write_zoo_bundle(tmp_path / "theirs", "spleen_ct_segmentation")
    return tmp_path / "theirs"


@pytest.fixture
def ours(tmp_path):
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours"


def archive_with(tmp_path, theirs, name, content=b"harm", **attributes):
    """The sound bundle's zip with one entry more."""
    archive = zipped(theirs, tmp_path / "bundle.zip")
    entry = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(entry, attribute, value)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(entry, content)
    return archive


@pytest.mark.parametrize(
    "name",
    [
        "../harm.txt",
        "theirs/../../harm.txt",
        "/tmp/harm.txt",
        "C:/harm.txt",
        "..\\harm.txt",
        "theirs/models/\\\\host\\x",
    ],
)
def test_a_zip_whose_paths_lead_out_of_the_folder_is_refused(tmp_path, theirs, ours, name):
    archive = archive_with(tmp_path, theirs, name)
    with pytest.raises(ModelError, match="leads out of the folder; nothing was unpacked"):
        import_bundle(archive, ours)
    assert not list(tmp_path.glob("**/harm.txt"))
    assert not list(ours.iterdir())


def test_a_zip_with_a_link_is_refused(tmp_path, theirs, ours):
    archive = archive_with(
        tmp_path,
        theirs,
        "theirs/models/link",
        b"/etc/passwd",
        external_attr=(stat.S_IFLNK | 0o777) << 16,
        create_system=3,
    )
    with pytest.raises(ModelError, match="is a link or a device"):
        import_bundle(archive, ours)


def test_a_zip_bomb_is_refused_before_it_grows(tmp_path, theirs, ours):
    archive = archive_with(
        tmp_path, theirs, "theirs/models/bomb", b"\0" * 50_000_000, compress_type=zipfile.ZIP_DEFLATED
    )
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(ModelError, match="as a zip bomb does"):
        import_bundle(archive, ours)


def test_a_zip_that_is_too_large_or_has_too_many_files_is_refused(tmp_path, theirs, monkeypatch):
    archive = zipped(theirs, tmp_path / "bundle.zip")
    monkeypatch.setattr("tomolens.models.import_archive.LARGEST_ARCHIVE", 1000)
    with pytest.raises(ModelError, match=r"at most .* are unpacked"):
        unpack(archive, tmp_path / "out")
    monkeypatch.setattr("tomolens.models.import_archive.MOST_FILES", 2)
    with pytest.raises(ModelError, match="holds 5 files; at most 2 are unpacked"):
        unpack(archive, tmp_path / "out")


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path, theirs, ours):
    archive = archive_with(tmp_path, theirs, "theirs/models/liar", b"x" * 5000, compress_type=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"theirs/models/liar")
    content[at - 22 : at - 18] = struct.pack("<I", 10)  # the uncompressed size in the central directory
    archive.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be unpacked"):
        import_bundle(archive, ours)


def test_what_is_no_zip_and_a_zip_without_a_bundle_are_refused(tmp_path, ours):
    (tmp_path / "words.zip").write_text("no zip")
    with pytest.raises(ModelError, match="cannot be unpacked"):
        import_bundle(tmp_path / "words.zip", ours)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as opened:
        opened.writestr("readme.md", "nothing")
    with pytest.raises(ModelError, match=r"holds no configs/metadata\.json"):
        import_bundle(tmp_path / "empty.zip", ours)


@pytest.mark.parametrize("name", ["theirs/LICENSE", "theirs/LICENSE/more", "theirs/" + "x" * 300, "theirs/./LICENSE"])
def test_a_zip_whose_names_no_disk_can_hold_is_refused(tmp_path, theirs, ours, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, of a name that is there twice
        archive = archive_with(tmp_path, theirs, name)
    with pytest.raises(ModelError, match=r"bundle\.zip cannot be unpacked"):
        import_bundle(archive, ours)
    assert not list(ours.iterdir())


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_zip_with_damaged_content_is_refused(tmp_path, theirs, ours, kind):
    archive = archive_with(tmp_path, theirs, "theirs/models/damaged", bytes(range(256)) * 9, compress_type=kind)
    content = bytearray(archive.read_bytes())
    at = content.index(b"theirs/models/damaged") + len("theirs/models/damaged")
    content[at : at + 40] = b"\xa5" * 40
    archive.write_bytes(content)
    with pytest.raises(ModelError, match=r"bundle\.zip cannot be unpacked"):
        import_bundle(archive, ours)


class Harm:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped_pickle", [True, False])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path, theirs, ours, zipped_pickle):
    mark = tmp_path / "ran"
    file = theirs / "models" / "model.pt"
    if zipped_pickle:
        torch.save({"weight": torch.zeros(2), "more": Harm(str(mark))}, file)
    else:
        file.write_bytes(pickle.dumps(Harm(str(mark)), protocol=2))
    with pytest.raises(ModelError, match="could run code when it is read") as refused:
        import_bundle(theirs, ours)
    assert not any(word in str(refused.value) for word in ("weights_only", "PyTorch", "Re-run", "torch.load"))
    assert not mark.exists()
    assert not list(ours.iterdir())


def test_torchscript_is_refused_since_it_is_code(tmp_path, theirs, ours):
    with zipfile.ZipFile(theirs / "models" / "model.pt", "w") as script:
        script.writestr("model/constants.pkl", b"")
        script.writestr("model/code/__torch__.py", b"def forward(): pass")
    with pytest.raises(ModelError, match=r"model\.pt is TorchScript, which is code"):
        import_bundle(theirs, ours)
    (theirs / "models" / "model.pt").rename(theirs / "models" / "model.ts")
    with pytest.raises(ModelError, match=r"holds no such file"):
        import_bundle(theirs, ours)


def test_a_checkpoint_that_is_a_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("archive/data/0", b"\0" * 50_000_000)
    with pytest.raises(ModelError, match="as a zip bomb does"):
        read_weights(tmp_path / "model.pt")


def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1).expand(1_000_000_000)}, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 10_000
    with pytest.raises(ModelError, match="weight claims 1000000000 numbers"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.tensor([1.0, float("nan")])}, "weights that are no number"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' is no tensor"),
        ({}, "it is empty"),
        (torch.zeros(3), "holds a Tensor; a state dict is needed"),
        ({"weight": torch.zeros(3).to_sparse()}, "plain numbers are taken"),
    ],
    ids=["NaN", "not only tensors", "nothing", "one tensor", "sparse"],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ModelError, match=r"model\.(pt|safetensors) "):
        read_weights(tmp_path / name)


def test_a_link_inside_a_folder_leads_nowhere(tmp_path, theirs, ours):
    secret = tmp_path / "secret.pt"
    (theirs / "models" / "model.pt").rename(secret)
    (theirs / "models" / "model.pt").symlink_to(secret)
    with pytest.raises(ModelError, match="lies outside the bundle"):
        import_bundle(theirs, ours)
    (theirs / "models" / "model.pt").unlink()
    secret.rename(theirs / "models" / "model.pt")
    (theirs / "LICENSE").unlink()
    (theirs / "LICENSE").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match=r"LICENSE.*lies outside the bundle"):
        import_bundle(theirs, ours)


@pytest.mark.parametrize("depth", [200, 200_000])
def test_json_that_is_too_deep_is_refused(tmp_path, depth):
    (tmp_path / "inference.json").write_text('{"a": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(ModelError, match="nested more than 64"):
        read_json(tmp_path / "inference.json")


def test_json_that_is_deep_and_wide_is_refused_before_anything_is_built_of_it(tmp_path, monkeypatch):
    (tmp_path / "inference.json").write_text('{"a": [' + ",".join(["[" * 90 + "]" * 90] * 1000) + "]}")
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(ModelError, match="nested more than 64"):
        read_json(tmp_path / "inference.json")


def test_brackets_in_a_text_do_not_count(tmp_path):
    text = {"a": "[" * 100 + '\\"' + "{" * 100, "b": [["]"]]}
    (tmp_path / "inference.json").write_text(json.dumps(text))
    assert read_json(tmp_path / "inference.json") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ('{"a": NaN}', "NaN is no number in JSON"),
        ('{"a": 1e999}', "1e999 is no number in JSON"),
        ('{"a": "\\ud800"}', "is not JSON"),
        ("\xff", "is not JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, text, message):
    (tmp_path / "metadata.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=message):
        read_json(tmp_path / "metadata.json")


def test_json_that_is_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "metadata.json").write_text(json.dumps({"a": "x" * 1000}))
    monkeypatch.setattr("tomolens.models.import_config.LARGEST_JSON", 100)
    with pytest.raises(ModelError, match="at most 100 are read"):
        read_json(tmp_path / "metadata.json")


HARMFUL = "$__import__('os').mkdir('RAN')"


@pytest.mark.parametrize(
    "key",
    ["imports", "bundle_root", "device", "network", "initialize", "run", "dataset", "output_dir", "preprocessing"],
)
def test_no_expression_of_a_bundle_is_ever_evaluated(tmp_path, ours, key, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zoo_bundle(tmp_path / "theirs", "spleen_ct_segmentation", lambda card, config: config.update({key: HARMFUL}))
    with pytest.raises(ModelError) if key in ("preprocessing", "network", "initialize", "run") else nullcontext():
        import_bundle(tmp_path / "theirs", ours)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$[1.5, -2, None]", [1.5, -2, None]),
        ("$(1, 2)", [1, 2]),
        ("$@size", [4, 4]),
        ("@size#0", 4),
        ("@size::1", 4),
        ("%size", [4, 4]),
        ("$not @flag", False),
        ("$[1] if @flag else [2]", [1]),
        ("$@root + '/models/' + 'model.pt'", "./models/model.pt"),
        ("$@net.to(@device)", {"_target_": "UNet", "n": 4}),
        (
            "$monai.networks.nets.resnet18(2, n=@size#0)",
            {"_target_": "monai.networks.nets.resnet18", "n": 4, "_args_": [2]},
        ),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_the_plain_forms_of_the_zoo_are_read_as_the_data_they_say(expression, value):
    values = {
        "size": [4, 4],
        "flag": True,
        "root": ".",
        "net": {"_target_": "UNet", "n": "@size#0"},
        "device": "$torch",
    }
    config = Config({"it": expression, **values}, "inference.json")
    assert config.at("it") == value


@pytest.mark.parametrize(
    "expression",
    [
        "$1 + 1",
        "$open('x').read()",
        "$[x for x in @size]",
        "$lambda x: x",
        "$@size[0]",
        "$f(**@net)",
        "$(",
        "$a.b[0](1)",
        "$2 ** 9999999",
    ],
)
def test_any_other_expression_stays_unknown(expression):
    config = Config({"it": expression, "size": [4, 4], "net": {"n": 1}}, "inference.json")
    assert isinstance(config.at("it"), Unknown)


RESERVED = ["CON", "nul", "Aux.v2", "COM1", "lpt9.x.y", "spleen."]
"""Names that Windows keeps for devices, or shortens."""


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "", "-x", "lung nodule", "x" * 65, "lung-nodule-centernet", *RESERVED]
)
def test_a_name_that_is_no_plain_name_or_a_shipped_models_is_refused(theirs, ours, name):
    with pytest.raises(ModelError, match=r"name"):
        import_bundle(theirs, ours, Wish(name or " "))


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    endless = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="no plain state dict"):
        read_weights(tmp_path / "model.pt")


def test_many_names_for_the_same_numbers_are_refused_before_they_fill_the_memory(tmp_path):
    numbers = torch.zeros(300_000)
    torch.save({f"weight {n}": numbers for n in range(40)}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="more than it holds"):
        read_weights(tmp_path / "model.pt")


def test_references_that_double_at_each_step_are_refused(tmp_path):
    laughs = {f"a{n}": [f"@a{n + 1}", f"@a{n + 1}"] for n in range(30)} | {"a30": 1}
    with pytest.raises(ModelError, match="references are followed"):
        Config(laughs, "inference.json").at("a0")


def test_a_reference_into_itself_is_refused():
    with pytest.raises(ModelError, match="circle"):
        Config({"network_def": "@network_def#x"}, "inference.json").at("network_def")


def test_a_reference_into_ever_deeper_lists_is_refused():
    deep = {f"a{n}": json.loads("[" * 40 + f'"@a{n + 1}"' + "]" * 40) for n in range(60)} | {"a60": 1}
    with pytest.raises(ModelError, match="in a circle, too deep or too far"):
        Config(deep, "inference.json").at("a0")


def test_texts_that_double_at_each_step_are_not_joined():
    laughs = {f"a{n}": f"$@a{n + 1} + @a{n + 1}" for n in range(8)} | {"a8": "x" * 1000}
    assert isinstance(Config(laughs, "inference.json").at("a0"), Unknown)


WRONG = [
    *(None, True, -1, 2.5, 10**400, "", "@", "$", "%", "$lambda x: x", "\0", "x" * 5000, [], [None], {}, [[]]),
    *({"_target_": None}, {"_target_": "UNet", "_args_": 5}, "@network_def", "@preprocessing", ["image", "pred"]),
]
"""Values of the wrong kind for almost every key."""


def places(value, path=()):
    """The place of every value in a configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def spoilt(values, random):
    """One or two values exchanged for wrong ones, left out, or put into a list."""
    for _ in range(random.integers(1, 3)):
        found = list(places(values))
        *path, last = found[random.integers(len(found))]
        owner = values
        for part in path:
            owner = owner[part]
        choice = random.integers(len(WRONG) + 2)
        if choice < len(WRONG):
            owner[last] = deepcopy(WRONG[choice])
        elif choice == len(WRONG):
            owner[last] = [owner[last]]
        else:
            del owner[last]


@pytest.mark.parametrize("kind", ZOO)
def test_a_configuration_with_anything_anywhere_is_taken_or_refused_and_leaves_nothing_behind(
    tmp_path, kind, monkeypatch
):
    write_zoo_bundle(tmp_path / "theirs", kind)
    for slow in ("read_weights", "check_fit", "_untrained", "save_file"):
        monkeypatch.setattr(f"tomolens.models.import_bundle.{slow}", lambda *_: {})
    files = [tmp_path / "theirs" / "configs" / f"{name}.json" for name in ("metadata", "inference")]
    sound, random, refused = [json.loads(file.read_text()) for file in files], np.random.default_rng(7), 0
    for _ in range(40):
        values = deepcopy(sound)
        spoilt(values[0 if random.random() < 0.25 else 1], random)
        for file, value in zip(files, values, strict=True):
            file.write_text(json.dumps(value))
        try:
            with whole_folder(tmp_path / "models" / "one") as folder:
                import_bundle(tmp_path / "theirs", folder, Wish(modality="CT"))
            shutil.rmtree(tmp_path / "models" / "one")
        except ModelError:
            refused += 1
        assert not list((tmp_path / "models").iterdir())
    assert 5 < refused < 40
