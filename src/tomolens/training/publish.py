"""A training run becomes a model folder: MONAI bundle layout, safetensors, a card with its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import distribution, version
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from tomolens.core.card import ModelCard
from tomolens.core.errors import ModelError, OptionError
from tomolens.core.reconstruction import Job
from tomolens.io.atomic import whole_folder
from tomolens.models.monai_config import INFERENCE, RUNNABLE, how_to_run, inference_config, network_data_format
from tomolens.models.registry import SECOND_STAGE, Bundle, find_bundle
from tomolens.models.weights import filled
from tomolens.training.classifier import ClassifierConfig
from tomolens.training.config import RunConfig, record_of
from tomolens.training.curves import draw_log
from tomolens.training.detector import TrainConfig
from tomolens.training.fingerprint import contents, read_contents, write_contents
from tomolens.training.reconstruction import ReconstructionConfig
from tomolens.training.runs import CONFIG, LOG, PLOT, RECORD, load_checkpoint, read_log

if TYPE_CHECKING:
    from tomolens.training.fingerprint import Content

METADATA = Path("configs", "metadata.json")
CONTENTS = Path("docs", "data.csv")
"""In a model folder: fingerprints of all scans and nodules that it learned from, and of those that were kept out.

The model that it started from counts. Where it is not known what that learned from, there is no such table.
"""
AVERAGED = "module."
RELIABILITY = "reliability.png"
OWN_LICENCE = "Apache-2.0"
"""Tomolens's own, whose text is at hand."""
_FILES = ("reliability", "licence_file")
_LARGEST_PLOT = 150_000
_CHEST = {"modality": "CT", "unit": "HU", "max_spacing_mm": 5.0, "min_extent_mm": 32.0}


@dataclass(frozen=True)
class Task:
    """What a run that is published was trained for.

    Parameters
    ----------
    config
        How the run's configuration is read.
    title
        What MONAI's card calls the task.
    input
        What its models take where a publication does not say it; empty where it must.
    """

    config: type[RunConfig]
    title: str
    input: Mapping[str, Any] = field(default_factory=dict)


TASKS: Mapping[str, Task] = {
    "detection": Task(TrainConfig, "Lung nodule detection in chest CT", _CHEST),
    SECOND_STAGE: Task(ClassifierConfig, "Second look at suspected lung nodules in chest CT", _CHEST),
    Job.DENOISING: Task(ReconstructionConfig, "Denoising of low-dose CT"),
    Job.MRI: Task(ReconstructionConfig, "MR images from undersampled k-space"),
    Job.SUPER_RESOLUTION: Task(ReconstructionConfig, "Thin slices from thick ones"),
}


@dataclass(frozen=True)
class Publication:
    """What a person must say of a model; the rest is read from the run.

    Parameters
    ----------
    licence
        Where it does not begin with the word ``Apache-2.0``, ``licence_file`` holds its text.
    authors
        Whose model it is; they hold the copyright.
    figures
        Measured figures by name.
    figures_from
        A sentence that says what measured them, on which data; where empty the card says that it is not said.
    task
        One of `TASKS`.
    default_min_score
        Of a detector, the threshold where the user asks for none.
    changes
        What is new in this version; what an older version in the same folder said of itself is kept.
    input
        What the model takes, as of `tomolens.core.card.InputContract`; for a reconstruction it must be said.
    settings
        Further arguments of the network, above those of the run: what was fitted after the training.
    second_stage, calibration, calibrated_for, ranges, generative, experimental
        As of `tomolens.core.card.ModelCard`; left out where empty. A run with an adversary is generative, said or not.
    reliability
        Picture of the calibration on held-out data, as ``benchmarks/detection.py`` draws it; a path from where the
        publication lies; none where empty.
    licence_file
        Text of the licence, a path from where the publication lies; where empty that of Apache-2.0.

    Raises
    ------
    OptionError
        If the task is unknown, something that it needs is not said, or the threshold is not from 0 to 1.
    """

    name: str
    version: str
    summary: str
    intended_use: str
    trained_on: str
    licence: str
    authors: str
    figures: Mapping[str, Any]
    figures_from: str = ""
    task: str = "detection"
    default_min_score: float | None = None
    changes: str = "first version"
    input: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    second_stage: str = ""
    calibration: Mapping[str, float] = field(default_factory=dict)
    calibrated_for: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)
    generative: bool = False
    experimental: bool = False
    reliability: str = ""
    licence_file: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise OptionError(f"task is {self.task!r}; accepted are {', '.join(TASKS)}.")
        if self.task == "detection" and self.default_min_score is None:
            raise OptionError("default_min_score is needed of a detector: the threshold where none is asked for.")
        if self.default_min_score is not None and not 0 <= self.default_min_score <= 1:
            raise OptionError(f"default_min_score is a number from 0 to 1, not {self.default_min_score}.")
        if not (self.input or TASKS[self.task].input):
            raise OptionError(f"input is needed for {self.task}: modality, unit, max_spacing_mm, min_extent_mm.")
        if not self.licence_file and self.licence.split()[:1] != [OWN_LICENCE]:
            raise OptionError(
                f"licence is {self.licence!r}: licence_file is needed, its text; {OWN_LICENCE} needs none."
            )
        for name in _FILES:
            if getattr(self, name) and not Path(getattr(self, name)).is_file():
                raise OptionError(f"{name} is {getattr(self, name)}, but there is no such file.")

    @classmethod
    def read(cls, file: Path) -> Publication:
        """Read it from JSON.

        Raises
        ------
        OptionError
            If a field is missing or unknown, or its value of the wrong kind; the message names the fields.
        """
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(said, dict):
                said |= {name: str(file.parent / said[name]) for name in _FILES if said.get(name)}
            return record_of(cls, said, str(file))
        except (TypeError, ValueError) as wrong:
            accepted = ", ".join(known.name for known in fields(cls))
            raise OptionError(f"{file} is no publication ({wrong}); it has the fields {accepted}.") from wrong


def publish(run: Path, publication: Publication, folder: Path) -> Bundle:
    """Write the averaged weights of a run and its card as a model folder; an older one there is replaced as a whole.

    What would not load replaces nothing.

    Raises
    ------
    OptionError
        If ``run`` holds no checkpoint, or ``folder`` holds something that is no model folder.
    ModelError
        If a value of the publication cannot stand in a card, or its ``settings`` are not those of the run's network.
    """
    if folder.exists() and not (folder / METADATA).is_file() and any(folder.iterdir()):
        raise OptionError(f"{folder} holds something else than a model; choose a new folder or one to be replaced.")
    state = load_checkpoint(run)
    config = TASKS[publication.task].config.from_json((run / CONFIG).read_text(encoding="utf-8"), str(run / CONFIG))
    metadata = _metadata(publication, config, int(state["round"]), _changes(folder))
    card = ModelCard.from_metadata(metadata, f"The card of {publication.name}")
    with whole_folder(folder) as temporary:
        for part in ("configs", "models", "docs"):
            (temporary / part).mkdir()
        (temporary / "models" / "model.safetensors").write_bytes(save(_weights(state["averaged"])))
        _write(temporary / METADATA, json.dumps(metadata, indent=2) + "\n")
        if card.task in RUNNABLE:
            _write(temporary / INFERENCE, json.dumps(inference_config(metadata), indent=2) + "\n")
        _write(temporary / "configs" / "train.json", config.to_json() + "\n")
        _write(temporary / "LICENSE", _licence(publication))
        before = _contents_of(config.start_from)
        if before is not None and RECORD in state:
            write_contents([*before, *contents(state[RECORD])], temporary / CONTENTS)
        plotted = _write_log(run, temporary / "docs")
        if publication.reliability:
            copyfile(publication.reliability, temporary / "docs" / RELIABILITY)
        _write(temporary / "docs" / "README.md", _page(publication, config, card, plotted))
        filled(Bundle(temporary, card))
    return Bundle(folder, card)


def _contents_of(model: str | None) -> list[Content] | None:
    """What the model that a run started from learned from; None where that is not known."""
    if model is None:
        return []
    try:
        table = find_bundle(model).folder / CONTENTS
    except ModelError:
        return None
    return read_contents(table) if table.is_file() else None


def _licence(publication: Publication) -> str:
    """The text that was given, or that of Tomolens's own licence, which the publication names."""
    if publication.licence_file:
        return Path(publication.licence_file).read_text(encoding="utf-8")
    return distribution("tomolens").read_text("licenses/LICENSE") or ""


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _write_log(run: Path, docs: Path) -> bool:
    """The log as a table and, where it is small enough for a package, as a picture; whether there is a picture."""
    _write(docs / LOG, (run / LOG).read_text(encoding="utf-8"))
    draw_log(read_log(run), docs / PLOT)
    if (docs / PLOT).stat().st_size > _LARGEST_PLOT:
        (docs / PLOT).unlink()
    return (docs / PLOT).exists()


def _weights(averaged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The averaged weights: kernels in half precision, norms in single, since their variances overflow half."""
    return {
        name.removeprefix(AVERAGED): (tensor.half() if tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in averaged.items()
        if name.startswith(AVERAGED)
    }


def _changes(folder: Path) -> dict[str, str]:
    """What the versions that stood in a folder said of themselves."""
    if not (folder / METADATA).is_file():
        return {}
    changes: dict[str, str] = json.loads((folder / METADATA).read_text(encoding="utf-8")).get("changelog", {})
    return changes


def _metadata(publication: Publication, config: RunConfig, rounds: int, before: Mapping[str, str]) -> dict[str, Any]:
    """MONAI's own fields, and the ``tomolens`` section that the program reads."""
    return {
        "version": publication.version,
        "changelog": {**before, publication.version: publication.changes},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "task": TASKS[publication.task].title,
        "description": publication.summary,
        "authors": publication.authors,
        "copyright": publication.authors,
        "data_source": publication.trained_on,
        "data_type": "dicom, nifti, nrrd, mha",
        "intended_use": publication.intended_use,
        **({"network_data_format": network_data_format()} if publication.task == "detection" else {}),
        "tomolens": _ours(publication, config, rounds),
    }


def _ours(publication: Publication, config: RunConfig, rounds: int) -> dict[str, Any]:
    training = {"seed": config.seed, "rounds": rounds, "patches": rounds * config.steps * config.batch}
    threshold = publication.default_min_score
    further = {
        "second_stage": publication.second_stage,
        "calibration": dict(publication.calibration),
        "calibrated_for": dict(publication.calibrated_for),
        "ranges": {name: list(bounds) for name, bounds in publication.ranges.items()},
        "generative": publication.generative or getattr(config, "adversary", None) is not None,
        "experimental": publication.experimental,
    }
    return {
        "name": publication.name,
        "task": publication.task,
        "licence": publication.licence,
        "input": dict(publication.input or TASKS[publication.task].input),
        "network": config.network,
        "settings": {**config.settings, **publication.settings},
        "training": {**training, **({"start_from": config.start_from} if config.start_from else {})},
        "figures": dict(publication.figures),
        **({} if threshold is None else {"default_min_score": threshold}),
        **{name: value for name, value in further.items() if value},
    }


def _page(publication: Publication, config: RunConfig, card: ModelCard, plotted: bool) -> str:
    start = f" It started from the weights of {config.start_from}." if config.start_from else ""
    plot = f"\n![Losses by step]({PLOT})\n" if plotted else ""
    trust = (
        f"\n![Share of findings that are nodules, by their score]({RELIABILITY})\n" if publication.reliability else ""
    )
    how = f"\n{how_to_run(card)}" if card.task in RUNNABLE else ""
    return (
        f"# {publication.name} {publication.version}\n\n{publication.summary}\n\n"
        f"**Intended use.** {publication.intended_use}\n\n"
        f"**Trained on.** {publication.trained_on.rstrip('.')}.{start} Seed {config.seed}; the whole configuration is"
        " in `configs/train.json`, the loss by round in `docs/log.csv`.\n\n"
        f"**Licence.** {publication.licence}\n\n"
        f"## Figures\n\n{_figures(publication)}\n{trust}{plot}{how}"
    )


def _figures(publication: Publication) -> str:
    if not publication.figures:
        return "Nothing was measured."
    origin = publication.figures_from or "As the authors gave them; it is not said what measured them."
    rows = "\n".join(f"| {name} | {value} |" for name, value in publication.figures.items())
    return f"{origin}\n\n| measure | value |\n|---|---|\n{rows}"
