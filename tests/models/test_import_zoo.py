from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.models.zoo_bundles import write_zoo_bundle, zipped
from tomolens.core.errors import Cancelled, ModelError, ReadError
from tomolens.models.import_zoo import fetch, is_zoo_name


@pytest.fixture
def mirror(tmp_path):
    """A folder as the zoo's releases: an index, and the zips of two versions."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_zoo_bundle(tmp_path / "spleen_ct_segmentation", "spleen_ct_segmentation")
    index = {}
    for version in ("0.9.0", "0.10.1"):
        name = f"spleen_ct_segmentation_v{version}"
        file = zipped(tmp_path / "spleen_ct_segmentation", folder / f"{name}.zip")
        index[name] = {
            "checksum": hashlib.sha1(file.read_bytes()).hexdigest(),
            "source": f"https://example.org/{name}.zip",
        }
    index["brats_mri_segmentation_v0.1.0"] = {"checksum": "", "source": "https://example.org/x.zip"}
    (folder / "model_info.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def server(mirror):
    """The mirror behind http on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}/"
    served.shutdown()
    served.server_close()


@pytest.fixture
def downloads(tmp_path):
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def test_the_newest_version_of_a_name_is_taken_and_an_older_one_by_its_number(mirror, downloads):
    assert fetch("spleen_ct_segmentation", downloads, str(mirror)).name == "spleen_ct_segmentation_v0.10.1.zip"
    assert (
        fetch("spleen_ct_segmentation_v0.9.0", downloads, mirror.as_uri()).name == "spleen_ct_segmentation_v0.9.0.zip"
    )


def test_a_download_tells_its_bytes_and_arrives_whole(mirror, server, downloads):
    steps = []
    file = fetch("spleen_ct_segmentation", downloads, server, steps.append)
    assert file.read_bytes() == (mirror / file.name).read_bytes()
    assert (steps[0].done, steps[-1].done) == (0, file.stat().st_size)
    assert {step.total for step in steps} == {file.stat().st_size}


def test_what_arrives_altered_is_thrown_away(mirror, downloads):
    with (mirror / "spleen_ct_segmentation_v0.10.1.zip").open("ab") as stream:
        stream.write(b"altered")
    with pytest.raises(ModelError, match=r"SHA-1 .* as the index says; it was thrown away"):
        fetch("spleen_ct_segmentation", downloads, str(mirror))
    assert not list(downloads.iterdir())


def test_a_download_can_be_stopped(mirror, downloads):
    def stop(step):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        fetch("spleen_ct_segmentation", downloads, str(mirror), stop)


def test_a_bundle_without_a_hash_is_refused(mirror, downloads):
    with pytest.raises(ModelError, match=r"no SHA-1 of brats_mri_segmentation_v0\.1\.0"):
        fetch("brats_mri_segmentation", downloads, str(mirror))


def test_an_unknown_name_is_answered_with_the_names_that_there_are(mirror, downloads):
    with pytest.raises(
        ModelError, match="no such bundle in the zoo; it has brats_mri_segmentation, spleen_ct_segmentation"
    ):
        fetch("spleen", downloads, str(mirror))


def test_a_mirror_that_is_not_there_is_answered_with_what_to_do(tmp_path, downloads):
    with pytest.raises(ReadError, match="Without a network, get the bundle's zip elsewhere"):
        fetch("spleen_ct_segmentation", downloads, str(tmp_path / "nowhere"))


def test_without_a_mirror_only_https_addresses_of_the_index_are_followed(mirror, downloads, monkeypatch):
    index = {"spleen_ct_segmentation_v0.1.0": {"checksum": "0" * 40, "source": "file:///etc/passwd"}}
    (mirror / "model_info.json").write_text(json.dumps(index))
    monkeypatch.setattr("tomolens.models.import_zoo.INDEX", (mirror / "model_info.json").as_uri())
    with pytest.raises(ModelError, match="only https addresses are followed"):
        fetch("spleen_ct_segmentation", downloads)


def test_a_download_larger_than_any_model_is_stopped(mirror, downloads, monkeypatch):
    monkeypatch.setattr("tomolens.models.import_zoo.LARGEST_ARCHIVE", 100)
    with pytest.raises(ModelError, match="is larger than"):
        fetch("spleen_ct_segmentation", downloads, str(mirror))


@pytest.mark.parametrize(
    ("word", "is_name"), [("spleen_ct", True), ("spleen_ct_v0.3.7", True), ("a/b", False), ("x.zip", False)]
)
def test_a_path_is_no_name(word, is_name):
    assert is_zoo_name(word) is is_name
