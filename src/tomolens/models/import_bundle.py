"""A MONAI bundle of somebody else's taken over as a model folder: its JSON read as data, its weights as safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from tomolens.core.card import ModelCard
from tomolens.core.errors import ModelError
from tomolens.core.progress import Progress, Step, silent
from tomolens.core.volume import Unit
from tomolens.models.import_answer import answer, check_boxes, made_images
from tomolens.models.import_archive import bundle_root, inside, unpack
from tomolens.models.import_checkpoint import checkpoint
from tomolens.models.import_config import Config, read_json
from tomolens.models.import_detector import boxes_and_windows
from tomolens.models.import_network import MappedNetwork, mapped_network
from tomolens.models.import_steps import check_taken_whole, preparation, windows
from tomolens.models.import_weights import check_fit, read_weights
from tomolens.models.import_wiring import check_wiring
from tomolens.models.networks import build
from tomolens.models.recipe import Recipe
from tomolens.models.registry import shipped_names

NOT_VALIDATED = "not validated by the Tomolens project; its figures are its authors'"
"""Said on the card of every imported model."""
UNCALIBRATED_SCORE = 0.5
"""Threshold of an imported detector: its bundle states none."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Windows keeps these for its devices, whatever follows the dot."""
_ZOO_VERSION = re.compile(r"_v\d+(\.\d+)*$")
_COARSEST_MM = 6.0
_LEAST_VOXELS = 8
_BACKGROUND = ("background", "other", "everything else", "none", "")
_STAGE = "import"
_LUNGS_ONLY = "It is searched with in the lungs only: what its network answers elsewhere is left out."


@dataclass(frozen=True)
class Wish:
    """What the user says of an import.

    ``name`` is the model's name here, None the bundle's; ``modality`` is DICOM's, where the bundle does not say it.
    """

    name: str | None = None
    modality: str | None = None


def import_bundle(source: Path, folder: Path, wish: Wish | None = None, progress: Progress = silent) -> ModelCard:
    """Write the model folder of a bundle (a folder or a zip) into an empty folder; its card.

    Nothing in the bundle is evaluated or run. ``folder`` is the caller's: give one that is thrown away on an error.

    Raises
    ------
    ModelError
        With the file and the key of what cannot be taken over, and why.
    """
    if source.is_dir():
        return _Import(bundle_root(source, str(source)), source, wish or Wish(), progress).write(folder)
    if not source.is_file():
        raise ModelError(f"{source} is neither a bundle's folder nor its zip.")
    with TemporaryDirectory(prefix="tomolens-import-") as unpacked:
        progress(Step("unpack", 0, 1))
        return _Import(unpack(source, Path(unpacked)), source, wish or Wish(), progress).write(folder)


def model_name(source: Path, wish: Wish) -> str:
    """The name that the model will have.

    Raises
    ------
    ModelError
        If it is no plain name, that of a device on Windows, or that of a shipped model.
    """
    name = wish.name or _ZOO_VERSION.sub(
        "", source.resolve().stem if source.suffix == ".zip" else source.resolve().name
    )
    if not _NAME.fullmatch(name):
        raise ModelError(
            "A model's name has up to 64 letters, digits, dots, dashes and underscores and ends in no dot, unlike "
            f"{name!r}; give one."
        )
    if _RESERVED.fullmatch(name):
        raise ModelError(f"The name {name!r} is a device's on Windows, where no folder can bear it; give another.")
    if name in shipped_names():
        raise ModelError(f"{name} is the name of a model that ships with Tomolens; give another.")
    return name


class _Import:
    """One bundle on its way."""

    def __init__(self, root: Path, source: Path, wish: Wish, progress: Progress) -> None:
        self._root, self._source, self._wish, self._progress = root, source, wish, progress
        self._metadata = read_json(root / "configs" / "metadata.json")
        self._config = _inference(root)

    def write(self, folder: Path) -> ModelCard:
        """Map, check, then write."""
        self._progress(Step(_STAGE, 0, 3))
        network = mapped_network(self._config)
        card = self._card(network)
        Recipe.of(ModelCard.from_metadata(card, "the new card"))
        self._progress(Step(_STAGE, 1, 3))
        file, names = checkpoint(self._root, self._config)
        tensors = read_weights(file, names)
        check_fit(_untrained(network), tensors, f"models/{file.name}")
        self._progress(Step(_STAGE, 2, 3))
        self._put(folder, card, tensors)
        self._progress(Step(_STAGE, 3, 3))
        return ModelCard.from_metadata(card)

    def _put(self, folder: Path, card: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for part in ("configs", "models", "docs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "models" / "model.safetensors")
        text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "configs" / "metadata.json").write_text(text + "\n", encoding="utf-8")
        (folder / "docs" / "README.md").write_text(self._page(card), encoding="utf-8")
        for name in ("LICENSE", "docs/data_license.txt"):
            if (self._root / name).is_file():
                shutil.copyfile(inside(self._root, name, name), folder / name)

    def _page(self, card: Mapping[str, Any]) -> str:
        text = self._text("docs/README.md")
        return f"# {card['tomolens']['name']}\n\n{card['tomolens']['origin']}\n\n{text}".rstrip() + "\n"

    def _card(self, network: MappedNetwork) -> dict[str, Any]:
        inputs, outputs = self._formats("inputs"), self._formats("outputs")
        recipe, notes = self._recipe(network)
        ours = {
            "name": model_name(self._source, self._wish),
            "task": network.task,
            "licence": self._licence(),
            "input": self._contract(network, inputs, recipe),
            "default_min_score": UNCALIBRATED_SCORE,
            "network": network.name,
            "settings": dict(network.settings),
            "labels": _labels(network, outputs, recipe.get("answer", {})),
            "recipe": recipe,
            "origin": self._origin(notes),
            "figures": {f"{name} (the authors')": v for name, v in self._plain("eval_metrics", {}).items()},
        }
        keys = (
            "version",
            "changelog",
            "monai_version",
            "pytorch_version",
            "numpy_version",
            "task",
            "authors",
            "copyright",
        )
        return {
            **{key: self._metadata[key] for key in keys if key in self._metadata},
            "version": str(self._metadata.get("version", "unknown")),
            "description": str(self._metadata.get("description", "no description")),
            "intended_use": f"{self._metadata.get('intended_use', 'not stated')} (Imported: {NOT_VALIDATED}.)",
            "data_source": str(self._metadata.get("data_source", "not stated")),
            "references": self._plain("references", []),
            "tomolens": ours,
        }

    def _plain(self, key: str, default: Any) -> Any:
        value = self._metadata.get(key, default)
        return value if isinstance(value, type(default)) else default

    def _formats(self, side: str) -> Mapping[str, Any]:
        """The first entry of ``network_data_format``'s inputs or outputs, with its key; empty where it says nothing."""
        formats = self._plain("network_data_format", {}).get(side)
        key = next(iter(formats), None) if isinstance(formats, dict) else None
        values = formats[key] if isinstance(formats, dict) and isinstance(formats.get(key), dict) else {}
        return {"key": key or "image", **values}

    def _recipe(self, network: MappedNetwork) -> tuple[dict[str, Any], list[str]]:
        evaluator = self._config.raw("evaluator") if "evaluator" in self._config else {}
        half = isinstance(evaluator, dict) and "amp" in evaluator and self._config.at("evaluator", "amp") is True
        check_wiring(self._config, network.task)
        if network.task in ("classification", "generation"):
            check_taken_whole(self._config)
        if network.task == "generation":
            return {"answer": made_images(self._config)}, []
        steps, notes = preparation(self._config, network.spatial_dims, lungs_only=network.task == "detection")
        if network.task == "detection":
            check_boxes(self._config)
            boxes, windowed = boxes_and_windows(self._config, network.settings)
            return {"steps": steps, "windows": windowed, "boxes": boxes, "half": half}, [*notes, _LUNGS_ONLY]
        read, more = answer(self._config, network.channels_out)
        notes += more
        if "decision" not in read and network.task == "segmentation":
            raise ModelError(
                f"{self._config.where('postprocessing')}: nothing says how channels become labels (AsDiscreted)."
            )
        sliding = windows(self._config, network.spatial_dims) if network.task == "segmentation" else None
        return {"steps": steps, "windows": sliding, "answer": read, "half": half}, notes

    def _contract(self, network: MappedNetwork, inputs: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
        if network.task == "generation":
            return {"modality": "none", "unit": Unit.ARBITRARY, "max_spacing_mm": 0, "min_extent_mm": 0, "channels": []}
        modality = (self._wish.modality or str(inputs.get("modality", ""))).upper()
        if modality not in ("CT", "MR", "PT") and not self._wish.modality:
            raise ModelError(
                f"metadata.json: network_data_format.inputs.{inputs['key']}.modality is {inputs.get('modality')!r}, no "
                "DICOM modality such as CT or MR; say it with --modality."
            )
        pixdim = next((step["pixdim"] for step in recipe["steps"] if step["do"] == "space"), [1.0])
        named = inputs.get("channel_def")
        named = named if isinstance(named, dict) and len(named) == network.channels_in else {}
        channels = [str(named.get(str(n), f"image {n + 1}")) for n in range(network.channels_in)]
        return {
            "modality": modality,
            "unit": Unit.HU if modality == "CT" else Unit.ARBITRARY,
            "max_spacing_mm": max(_COARSEST_MM, 3 * max(pixdim)),
            "min_extent_mm": _LEAST_VOXELS * min(map(abs, pixdim)) if network.spatial_dims == 3 else 0.0,
            "channels": channels if network.channels_in > 1 else ["image"],
        }

    def _text(self, name: str) -> str:
        """A text of the bundle; empty where there is none."""
        if not (self._root / name).is_file():
            return ""
        try:
            return inside(self._root, name, name).read_text(encoding="utf-8", errors="replace")
        except OSError as unreadable:
            raise ModelError(f"{name} cannot be read: {unreadable}.") from unreadable

    def _licence(self) -> str:
        first = next((line.strip() for line in self._text("LICENSE").split("\n") if line.strip()), "")
        return f"{first[:80]} (its LICENSE is kept in the folder)" if first else "not stated by its authors"

    def _origin(self, notes: list[str]) -> str:
        digest = ""
        if self._source.is_file():
            with self._source.open("rb") as stream:
                digest = f", SHA-256 {hashlib.file_digest(stream, 'sha256').hexdigest()}"
        said = "".join(f" {note}" for note in dict.fromkeys(notes))
        limits = "The limits of spacing and extent and the threshold were set by Tomolens, not by the authors."
        name = os.fsencode(self._source.name).decode("utf-8", "replace")
        return f"Imported from {name}{digest}; {NOT_VALIDATED}. {limits}{said}"


def _inference(root: Path) -> Config:
    configs = root / "configs"
    if not (configs / "inference.json").is_file():
        others = ", ".join(sorted(file.name for file in configs.iterdir()))
        raise ModelError(
            f"{configs.name} has no inference.json (it has {others}); YAML and Python configurations are not read."
        )
    return Config(read_json(configs / "inference.json"), "inference.json")


def _untrained(network: MappedNetwork) -> torch.nn.Module:
    """The network without memory for its weights, where it can be built so: a hostile size costs nothing."""
    try:
        with torch.device("meta"):
            return build(network.name, network.settings)
    except ModelError:
        return build(network.name, network.settings)


def _labels(network: MappedNetwork, outputs: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, str]:
    """Label to name, from the bundle's channel table."""
    table = outputs.get("channel_def")
    table = {str(key): str(name) for key, name in table.items()} if isinstance(table, dict) else {}
    names = {n: table.get(str(n), f"label {n}") for n in range(network.channels_out)}
    if network.task == "classification":
        return _class_names(network.channels_out, table, read)
    if network.task != "segmentation":
        return {}
    if read["decision"] == "argmax":
        if table.get("0", "").lower().strip() not in _BACKGROUND:
            raise ModelError(
                f"metadata.json: network_data_format.outputs: channel 0 is {table['0']!r}; of channels that "
                "compete (argmax) the first is the background."
            )
        return {str(n): name for n, name in names.items() if n}
    if not read.get("paint"):
        return {str(n + 1): table.get(str(n), f"region {n + 1}") for n in names}
    return _painted_names(read["paint"], names)


def _class_names(channels: int, table: Mapping[str, str], read: Mapping[str, Any]) -> dict[str, str]:
    """The classes' names. A single logit says how surely an image is of the second of two classes, or of the one."""
    if channels == 1 and read["activation"] != "sigmoid" and read.get("decision") != "threshold":
        raise ModelError(
            "inference.json: postprocessing: the network answers with one number, and no sigmoid or threshold says how "
            "it becomes a probability."
        )
    count = 2 if channels == 1 and len(table) == 2 else channels
    if set(table) - {str(n) for n in range(count)}:
        raise ModelError(
            f"metadata.json: network_data_format.outputs: channel_def names {', '.join(table)!r:.80}; the network "
            f"answers for {count} classes."
        )
    return {str(n): table.get(str(n), f"class {n}") for n in range(count)}


def _painted_names(paint: list[tuple[int, int]], names: Mapping[int, str]) -> dict[str, str]:
    """What each label shows of its region: not what lies under the regions on top."""
    found = {}
    for place, (channel, label) in enumerate(paint):
        if channel not in names or not 0 < label < 1 << 16:
            raise ModelError(
                f"inference.json: postprocessing: channel {channel} as label {label}: there is no such one."
            )
        above = [names.get(c, f"label {c}") for c, _ in paint[place + 1 :]]
        rest = f" outside {' and '.join(above)}" if above else ""
        found[str(label)] = f"{names[channel]}{rest}"
    return found
