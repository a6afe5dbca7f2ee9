"""A training run becomes a model folder: MONAI bundle layout, safetensors, a card with its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from tomolens.core.errors import OptionError
from tomolens.io.atomic import whole_folder
from tomolens.models.registry import Bundle
from tomolens.training.detector import TrainConfig
from tomolens.training.runs import CONFIG, LOG, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

AVERAGED = "module."


@dataclass(frozen=True)
class Publication:
    """What a person must say of a model; the rest is read from the run.

    ``figures`` are measured figures by name, as printed by ``benchmarks/detection.py``.
    """

    name: str
    version: str
    summary: str
    intended_use: str
    trained_on: str
    licence: str
    default_min_score: float
    figures: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> Publication:
        """Read it from JSON.

        Raises
        ------
        OptionError
            If a field is missing or unknown; the message names the fields.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as wrong:
            raise OptionError(
                f"{file} is no publication ({wrong}); it has the fields {list(cls.__annotations__)}."
            ) from wrong


def publish(run: Path, publication: Publication, folder: Path) -> Bundle:
    """Write the averaged weights of a run and its card as a model folder; an older one there is replaced as a whole.

    Raises
    ------
    OptionError
        If ``run`` holds no checkpoint, or ``folder`` holds something that is no model folder.
    """
    if folder.exists() and not (folder / "configs" / "metadata.json").is_file() and any(folder.iterdir()):
        raise OptionError(f"{folder} holds something else than a model; choose a new folder or one to be replaced.")
    state = load_checkpoint(run)
    config = TrainConfig.from_json((run / CONFIG).read_text(encoding="utf-8"), str(run / CONFIG))
    with whole_folder(folder) as temporary:
        for part in ("configs", "models", "docs"):
            (temporary / part).mkdir()
        (temporary / "models" / "model.safetensors").write_bytes(save(_weights(state["averaged"])))
        metadata = _metadata(publication, config, int(state["round"]))
        _write(temporary / "configs" / "metadata.json", json.dumps(metadata, indent=2) + "\n")
        _write(temporary / "configs" / "train.json", config.to_json() + "\n")
        _write(temporary / "docs" / "README.md", _card(publication, config))
        _write(temporary / "docs" / LOG, (run / LOG).read_text(encoding="utf-8"))
        _write(temporary / "LICENSE", _licence())
    return Bundle.open(folder)


def _licence() -> str:
    """The text of Tomolens's own licence, under which its weights are published."""
    return distribution("tomolens").read_text("licenses/LICENSE") or ""


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _weights(averaged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The averaged weights: kernels in half precision, norms in single, since their variances overflow half."""
    return {
        name.removeprefix(AVERAGED): (tensor.half() if tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in averaged.items()
        if name.startswith(AVERAGED)
    }


def _metadata(publication: Publication, config: TrainConfig, rounds: int) -> dict[str, Any]:
    """MONAI's own fields, and the ``tomolens`` section that the program reads."""
    return {
        "version": publication.version,
        "changelog": {publication.version: "first version"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "task": "Lung nodule detection in chest CT",
        "description": publication.summary,
        "authors": "The Tomolens developers",
        "copyright": "The Tomolens developers",
        "data_source": publication.trained_on,
        "data_type": "dicom, nifti, nrrd, mha",
        "intended_use": publication.intended_use,
        "tomolens": {
            "name": publication.name,
            "task": "detection",
            "licence": publication.licence,
            "input": {"modality": "CT", "unit": "HU", "max_spacing_mm": 5.0, "min_extent_mm": 32.0},
            "default_min_score": publication.default_min_score,
            "network": config.network,
            "settings": dict(config.settings),
            "training": {"seed": config.seed, "rounds": rounds, "patches": rounds * config.steps * config.batch},
            "figures": dict(publication.figures),
        },
    }


def _card(publication: Publication, config: TrainConfig) -> str:
    figures = "\n".join(f"| {name} | {value} |" for name, value in publication.figures.items())
    return (
        f"# {publication.name} {publication.version}\n\n{publication.summary}\n\n"
        f"**Intended use.** {publication.intended_use}\n\n"
        f"**Trained on.** {publication.trained_on} Seed {config.seed}; the whole configuration is in"
        " `configs/train.json`, the loss by round in `docs/log.csv`.\n\n"
        f"**Licence.** {publication.licence}\n\n"
        f"## Figures\n\nPrinted by `benchmarks/detection.py`, on data that was not trained on.\n\n"
        f"| measure | value |\n|---|---|\n{figures}\n"
    )
