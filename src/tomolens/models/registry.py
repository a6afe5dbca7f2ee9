"""The models at hand: one folder each, in MONAI bundle layout, shipped with Tomolens or imported by the user."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from tomolens.core.card import ModelCard
from tomolens.core.errors import ModelError

BUNDLES = Path(__file__).parent / "bundles"
DEFAULT_DETECTOR = "lung-nodule-centernet"
SECOND_STAGE = "nodule classification"
"""The task of a model that looks again at what a detector marks."""
NO_SECOND_STAGE = "none"


@dataclass(frozen=True)
class Bundle:
    """A model folder: its card, and where its weights lie."""

    folder: Path
    card: ModelCard

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / "models" / "model.safetensors"

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights file, in hex; what a `Run` is traced by.

        Raises
        ------
        ModelError
            If the file is missing.
        """
        if not self.weights.is_file():
            raise ModelError(f"There are no weights at {self.weights}; a model folder holds models/model.safetensors.")
        with self.weights.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read ``configs/metadata.json`` as data; nothing in it is evaluated.

        Raises
        ------
        ModelError
            If the file is missing, is not JSON, or lacks a key.
        """
        file = folder / "configs" / "metadata.json"
        if not file.is_file():
            raise ModelError(f"{folder} is not a model folder: it has no configs/metadata.json.")
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as broken:
            raise ModelError(f"{file} is not JSON: {broken}.") from broken
        return cls(folder, ModelCard.from_metadata(metadata, str(file)))


@dataclass(frozen=True)
class UnreadableModel:
    """A folder among the user's models whose card cannot be read, and why."""

    folder: Path
    reason: str


def models_folder() -> Path:
    """Where imported models lie: ``$TOMOLENS_MODELS``, else ``tomolens/models`` in the user's data folder.

    The variable says where models lie and changes nothing else.
    """
    return Path(os.environ.get("TOMOLENS_MODELS") or user_data_path("tomolens", appauthor=False) / "models")


def list_models(folder: Path | None = None) -> tuple[ModelCard, ...]:
    """The cards of the models that ship with Tomolens, then of those that the user imported, each by name.

    ``folder`` is where imported models lie; None takes `models_folder`.
    """
    shipped = (Bundle.open(place) for place in _bundle_folders(BUNDLES))
    return tuple(bundle.card for bundle in (*shipped, *imported_bundles(folder)[0]))


def imported_bundles(folder: Path | None = None) -> tuple[list[Bundle], list[UnreadableModel]]:
    """The models in the user's folder (see `models_folder`), and the folders there that cannot be read.

    A model that bears a shipped model's name is not read: a name stands for one model.
    """
    bundles, unreadable = [], []
    for place in _bundle_folders(folder or models_folder()):
        try:
            bundles.append(_checked(Bundle.open(place)))
        except (ModelError, OSError) as problem:
            unreadable.append(UnreadableModel(place, str(problem)))
    return bundles, unreadable


def _checked(bundle: Bundle) -> Bundle:
    if bundle.folder.name != bundle.card.name or bundle.card.name in shipped_names():
        raise ModelError(
            f"{bundle.folder} holds a model named {bundle.card.name!r}; a folder bears its model's name, and not a "
            f"shipped model's ({', '.join(shipped_names())})."
        )
    return bundle


def find_bundle(name: str | Path | None = None, folder: Path | None = None) -> Bundle:
    """The bundle of that name or in that folder; the default detector where None.

    ``folder`` is where imported models lie; None takes `models_folder`.

    Raises
    ------
    ModelError
        If there is none.
    """
    name = name or DEFAULT_DETECTOR
    if str(name) in shipped_names():
        return Bundle.open(BUNDLES / name)
    imported, unreadable = imported_bundles(folder)
    for bundle in imported:
        if bundle.card.name == str(name):
            return bundle
    if Path(name).is_dir():
        return Bundle.open(Path(name))
    broken = [model.reason for model in unreadable if model.folder.name == str(name)]
    if broken:
        raise ModelError(f"The imported model {name} cannot be used: {broken[0]}")
    known = ", ".join([*shipped_names(), *(bundle.card.name for bundle in imported)])
    raise ModelError(f"There is no model {str(name)!r}; known are {known}, or give the folder of a model.")


def shipped_names() -> tuple[str, ...]:
    """The names of the models that ship with Tomolens."""
    return tuple(folder.name for folder in _bundle_folders(BUNDLES))


def find_second_stage(detector: Bundle, wish: str | Path | None = None) -> Bundle | None:
    """The model that looks again at what a detector marks: the one its card names, another, or none (``"none"``).

    Raises
    ------
    ModelError
        If there is no such model or it is no nodule classifier.
    """
    name = detector.card.second_stage if wish is None else wish
    return None if name in ("", NO_SECOND_STAGE) else find_classifier(name)


def find_classifier(name: str | Path) -> Bundle:
    """The nodule classifier of that name or in that folder.

    Raises
    ------
    ModelError
        If there is no such model or it is no nodule classifier.
    """
    bundle = find_bundle(name)
    if bundle.card.task != SECOND_STAGE:
        raise ModelError(f"{bundle.card.name} does {bundle.card.task}; a nodule classifier is needed.")
    return bundle


def _bundle_folders(root: Path) -> list[Path]:
    """Folders that hold a card; what an import is just writing (its name starts with a dot) is none."""
    files = root.glob("*/configs/metadata.json")
    return sorted(file.parents[1] for file in files if not file.parents[1].name.startswith("."))
