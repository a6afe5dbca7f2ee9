"""The models at hand: one folder each, in MONAI bundle layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tomolens.core.card import ModelCard
from tomolens.core.errors import ModelError

BUNDLES = Path(__file__).parent / "bundles"
DEFAULT_DETECTOR = "lung-nodule-centernet"


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


def list_models() -> tuple[ModelCard, ...]:
    """The cards of the models that ship with Tomolens, by name."""
    return tuple(bundle.card for bundle in _shipped())


def find_bundle(name: str | Path | None = None) -> Bundle:
    """The bundle of that name or in that folder; the default detector where None.

    Raises
    ------
    ModelError
        If there is none.
    """
    name = name or DEFAULT_DETECTOR
    for bundle in _shipped():
        if bundle.card.name == str(name):
            return bundle
    if Path(name).is_dir():
        return Bundle.open(Path(name))
    known = ", ".join(bundle.card.name for bundle in _shipped())
    raise ModelError(f"There is no model {str(name)!r}; known are {known}, or give the folder of a model.")


def _shipped() -> list[Bundle]:
    folders = sorted(file.parent.parent for file in BUNDLES.glob("*/configs/metadata.json"))
    return [Bundle.open(folder) for folder in folders]
