"""The manifest is what npe2 accepts, finds the plugin, and costs napari no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest

import tomolens
from tomolens.io.kspace import KSPACE_SUFFIXES
from tomolens.napari_plugin import windowing

MANIFEST = Path(tomolens.__file__).parent / "napari_plugin" / "napari.yaml"


@pytest.fixture
def manager(tmp_path):
    manager = PluginManager()
    manager.discover()
    return manager


def readers_of(manager, path):
    return {reader.plugin_name for reader in manager.iter_compatible_readers([path])}


def test_the_installed_package_offers_the_manifest(manager):
    assert PluginManifest.from_distribution("tomolens") == PluginManifest.from_file(MANIFEST)
    assert "tomolens" in manager


def test_every_command_can_be_imported():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    ids = {command.id for command in manifest.contributions.commands}
    assert ids >= {"tomolens.read", "tomolens.detect_nodules", "tomolens.segment", "tomolens.reconstruct"}


def test_detect_lung_nodules_and_segment_are_in_plugins_and_in_layers_segment():
    contributions = PluginManifest.from_file(MANIFEST).contributions
    assert {"Detect lung nodules", "Segment"} <= {widget.display_name for widget in contributions.widgets}
    commands = [item.command for item in contributions.menus["napari/layers/segment"]]
    assert commands == ["tomolens.detect_nodules", "tomolens.segment"]


def test_reconstruct_is_in_plugins_and_in_layers_filter():
    contributions = PluginManifest.from_file(MANIFEST).contributions
    assert "Reconstruct" in {widget.display_name for widget in contributions.widgets}
    assert [item.command for item in contributions.menus["napari/layers/filter"]] == ["tomolens.reconstruct"]


@pytest.mark.parametrize(
    "name",
    ["IM000001", "I10", "7", "scan.dcm", "SCAN.DCM", "1.2.840.113619.2.55.3", "a.nii", "a.nii.gz", "a.nrrd", "a.mha",
     "DICOMDIR", "findings.json", "segmentation.json", "a" * 40, *(f"a{suffix}" for suffix in KSPACE_SUFFIXES)],
)  # fmt: skip
def test_what_we_may_read_is_offered_to_us(manager, name):
    assert "tomolens" in readers_of(manager, name)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ome.tiff", "a.csv", "a.json", "a.npy", "a.mp4", "a.geojson"])
def test_what_others_read_stays_theirs(manager, name):
    assert "tomolens" not in readers_of(manager, name)


def test_preset_keys_are_not_napari_s_own():
    from napari.utils.shortcuts import default_shortcuts

    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    assert not taken & {preset.key for preset in windowing.PRESETS}


def test_finding_the_plugin_and_opening_its_modules_imports_no_torch():
    modules = [
        "reader",
        "writer",
        "sample_data",
        "detect_widget",
        "segment_widget",
        "reconstruct_widget",
        "window_widget",
    ]
    lines = [f"import tomolens.napari_plugin.{name}" for name in modules]
    lines += ["import sys", "print({'torch', 'monai'} & set(sys.modules))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
