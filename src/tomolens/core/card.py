"""What a model is, what it takes and how good it was measured to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tomolens.core.errors import ContractError, ModelError
from tomolens.core.volume import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tomolens.core.volume import Volume

ANY_UNIT = "any"
"""What a card says for a model that takes numbers of any unit."""


@dataclass(frozen=True)
class InputContract:
    """What a model accepts; checked before any work.

    Parameters
    ----------
    modality
        DICOM modality, e.g. ``CT``; of a model that takes several ``CT or MR``.
    unit
        Unit of the voxels; None where the model takes any.
    max_spacing_mm
        The coarsest spacing along any axis that the model was shown.
    min_extent_mm
        The shortest field of view along any axis.
    channels
        Names of the images that are read together, on one grid: most models read one.
    """

    modality: str
    unit: Unit | None
    max_spacing_mm: float
    min_extent_mm: float
    channels: tuple[str, ...] = ("image",)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Each modality that is accepted."""
        return tuple(self.modality.split(" or "))

    def refusals(self, volume: Volume) -> tuple[str, ...]:
        """Why the volume is refused, one sentence a reason; empty where it is accepted."""
        spacing, most = max(volume.spacing_mm), self.max_spacing_mm
        extent, least = min(volume.extent_mm), self.min_extent_mm
        reasons = (
            (volume.modality not in self.modalities, f"it is {volume.modality}, the model takes {self.modality}"),
            (self.unit not in (None, volume.unit), f"its unit is {volume.unit}, the model takes {self.unit}"),
            (not _is_finite(volume.voxels), "it has voxels that are no number (NaN or infinite)"),
            (spacing > most, f"its spacing is {spacing:.2f} mm, at most {most:g} mm will do"),
            (extent < least, f"it covers {extent:.0f} mm, at least {least:g} mm are needed along each axis"),
        )
        return tuple(reason for refused, reason in reasons if refused)

    def check(self, volume: Volume) -> None:
        """Refuse a volume that the model was not made for.

        Raises
        ------
        ContractError
            With every reason.
        """
        reasons = self.refusals(volume)
        if reasons:
            raise ContractError(f"{volume.name} cannot be read by this model: {'; '.join(reasons)}.")


def _is_finite(voxels: NDArray[Any]) -> bool:
    return voxels.dtype.kind != "f" or bool(np.isfinite(voxels).all())


@dataclass(frozen=True)
class Calibration:
    """How the score that is shown follows from what the networks answer.

    The score is the logistic function of ``detector`` times the detector's logit, plus ``classifier`` times that of its
    second stage, plus ``offset`` (Platt, 1999), fitted on whole lungs with known nodules so that of all findings with a
    score of .8 four in five are nodules, in scans that hold as many nodules as LUNA16's (1.3 a scan). How far that
    holds on other data is among a model's figures.

    The malignancy that a second stage shows is the logistic function of ``malignancy`` times its logit, plus
    ``malignancy_offset``, fitted likewise on rated nodules.
    """

    detector: float = 1.0
    classifier: float = 0.0
    offset: float = 0.0
    malignancy: float = 1.0
    malignancy_offset: float = 0.0


@dataclass(frozen=True)
class CalibratedFor:
    """The detector that a second stage was calibrated with: its name, and the SHA-256 of its weights file, in hex."""

    detector: str
    weights_sha256: str


@dataclass(frozen=True)
class ModelCard:
    """What a reader must know of a model before trusting it.

    Read from a bundle's ``configs/metadata.json`` by `from_metadata`. ``figures`` are the measured figures by name,
    each a number with its unit in the name; ``settings`` is what the network's builder needs.

    Parameters
    ----------
    labels
        What the numbers in the answer mean, of a model that names structures or classes; without background (0).
    recipe
        How an imported model's input is prepared, run in windows and its answer read, as plain data; see
        `tomolens.models.recipe`. Empty for the models that ship with Tomolens.
    second_stage
        Of a detector, the name of the model that looks again at what it marks; empty where there is none.
    calibration
        Of a detector, for its use alone; of a second stage, for its use with the detector that it was calibrated for.
    calibrated_for
        Of a second stage, that detector; None where nobody said.
    origin
        Where an imported model came from and what that means for its figures; empty for our own.
    ranges
        Of a reconstruction model, the (least, largest) that it was trained on by name, e.g. ``noise_hu``; what lies
        outside is said with each result.
    generative
        Whether it is a GAN, whose texture may be invented.
    experimental
        Whether its figures show it no better than the classical method; then it is not what is chosen by default.
    """

    name: str
    version: str
    task: str
    summary: str
    intended_use: str
    trained_on: str
    licence: str
    input: InputContract
    default_min_score: float
    network: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    figures: Mapping[str, Any] = field(default_factory=dict, repr=False)
    labels: Mapping[int, str] = field(default_factory=dict, repr=False)
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)
    second_stage: str = ""
    calibration: Calibration = Calibration()
    calibrated_for: CalibratedFor | None = None
    origin: str = ""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    generative: bool = False
    experimental: bool = False

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], where: str = "metadata.json") -> ModelCard:
        """Read the card from MONAI metadata with a ``tomolens`` section.

        Raises
        ------
        ModelError
            If a key is missing or has a value that is not accepted; the message names it.
        """
        try:
            ours = metadata["tomolens"]
            return cls(
                name=ours["name"],
                version=metadata["version"],
                task=ours["task"],
                summary=metadata["description"],
                intended_use=metadata["intended_use"],
                trained_on=metadata["data_source"],
                licence=ours["licence"],
                input=_contract(ours["input"]),
                default_min_score=_threshold(ours),
                network=ours["network"],
                settings=ours["settings"],
                figures=ours["figures"],
                labels={int(number): str(label) for number, label in ours.get("labels", {}).items()},
                recipe=ours.get("recipe", {}),
                second_stage=str(ours.get("second_stage", "")),
                calibration=Calibration(**ours.get("calibration", {})),
                calibrated_for=CalibratedFor(**ours["calibrated_for"]) if "calibrated_for" in ours else None,
                origin=str(ours.get("origin", "")),
                ranges={str(name): (float(low), float(high)) for name, (low, high) in ours.get("ranges", {}).items()},
                generative=bool(ours.get("generative", False)),
                experimental=bool(ours.get("experimental", False)),
            )
        except KeyError as missing:
            raise ModelError(
                f"{where} lacks the key {missing}; ARCHITECTURE.md, 'A model is a folder', lists them."
            ) from missing
        except (TypeError, ValueError, AttributeError) as wrong:
            raise ModelError(f"{where} cannot be understood: {wrong}.") from wrong


def _threshold(ours: Mapping[str, Any]) -> float:
    """A detector must say it; what marks nothing has none."""
    return float(ours["default_min_score"] if ours["task"] == "detection" else ours.get("default_min_score", 0.0))


def _contract(values: Mapping[str, Any]) -> InputContract:
    channels = tuple(map(str, values.get("channels", ("image",))))
    unit = None if values["unit"] == ANY_UNIT else Unit(values["unit"])
    return InputContract(**{**values, "unit": unit, "channels": channels})
