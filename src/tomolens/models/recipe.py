"""How an imported model is run: what is done to its input, in which windows, and how its answer is read. Plain data.

A card's ``recipe`` holds these as JSON. Axes are those of the model's own array, which `orient` names by letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tomolens.core.errors import ModelError

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard


PADDINGS = ("constant", "reflect", "replicate", "circular")
"""What may stand around an image smaller than the window."""
LARGEST_WINDOW = 4096


@dataclass(frozen=True)
class Windows:
    """The window that slides over the image, with MONAI's meaning of each word.

    Parameters
    ----------
    roi_size
        Voxels along each axis of the network's array; 0 or less takes the whole axis.
    batch
        Windows at a time.
    overlap
        Share of a window that the next one covers again, 0 to below 1.
    mode
        ``gaussian`` weighs the centre of a window more than its edge, ``constant`` does not.
    sigma_scale
        Width of the Gaussian as a share of the window.
    padding_mode, cval
        What stands around an image smaller than the window.
    slice_axis
        For a 2D network the axis along which the slices are taken one by one; None for a 3D network.
    """

    roi_size: tuple[int, ...]
    batch: int = 1
    overlap: float = 0.25
    mode: str = "constant"
    sigma_scale: float = 0.125
    padding_mode: str = "constant"
    cval: float = 0.0
    slice_axis: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "roi_size", tuple(map(int, self.roi_size)))
        object.__setattr__(self, "cval", float(self.cval))
        if not (0 <= self.overlap < 1 and self.batch >= 1 and self.mode in ("constant", "gaussian")):
            raise ValueError(f"windows overlap by 0 to below 1 and come 1 or more at a time, not {self}")
        if self.padding_mode not in PADDINGS or not self.sigma_scale > 0:
            raise ValueError(f"windows are padded by one of {', '.join(PADDINGS)} and weighed by a width above 0")
        if max(self.roi_size) > LARGEST_WINDOW or self.slice_axis not in (None, 0, 1, 2):
            raise ValueError(f"a window has up to {LARGEST_WINDOW} voxels a side, and a slice one of three axes")


@dataclass(frozen=True)
class Answer:
    """How the network's channels become labels.

    Parameters
    ----------
    activation
        ``softmax``, ``sigmoid`` or ``none``.
    decision
        ``argmax``: a voxel has the label of its strongest channel; ``threshold``: every channel is a region of its own.
    threshold
        What a region's voxels reach.
    back
        ``linear`` brings the channels to the scan's grid and decides there; ``nearest`` decides first.
    paint
        (channel, label) pairs, later ones on top, of regions; empty lets the smallest region lie on top.
    largest
        Labels of which the largest connected part alone is kept.
    largest_first
        That part is chosen on the network's grid, before ``nearest`` brings the labels back.
    """

    activation: str = "softmax"
    decision: str = "argmax"
    threshold: float = 0.5
    back: str = "linear"
    paint: tuple[tuple[int, int], ...] = ()
    largest: tuple[int, ...] = ()
    largest_first: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "paint", tuple((int(channel), int(label)) for channel, label in self.paint))
        object.__setattr__(self, "largest", tuple(map(int, self.largest)))
        known = ("softmax", "sigmoid", "none"), ("argmax", "threshold"), ("linear", "nearest")
        for value, accepted in zip((self.activation, self.decision, self.back), known, strict=True):
            if value not in accepted:
                raise ValueError(f"an answer is read by one of {', '.join(accepted)}, not {value!r}")


@dataclass(frozen=True)
class Boxes:
    """How a box detector's answer is read, with MONAI's meaning of each word.

    ``base_anchor_shapes`` are boxes in voxels at the finest level, ``feature_map_scales`` the levels' sizes relative to
    it. A box scores above ``score_thresh``, is among the best ``topk_candidates_per_level``, and overlaps no better one
    by more than ``nms_thresh``.
    """

    feature_map_scales: tuple[float, ...]
    base_anchor_shapes: tuple[tuple[float, ...], ...]
    score_thresh: float = 0.05
    topk_candidates_per_level: int = 1000
    nms_thresh: float = 0.5
    detections_per_img: int = 300

    def __post_init__(self) -> None:
        shapes = tuple(tuple(float(side) for side in shape) for shape in self.base_anchor_shapes)
        object.__setattr__(self, "feature_map_scales", tuple(map(float, self.feature_map_scales)))
        object.__setattr__(self, "base_anchor_shapes", shapes)
        sides = [side for shape in shapes for side in shape]
        if not sides or any(len(shape) != 3 for shape in shapes) or min(*sides, *self.feature_map_scales) <= 0:
            raise ValueError(f"anchors are boxes of three sides above 0 at scales above 0, not {shapes}")
        if not (0 <= self.score_thresh <= 1 and 0 <= self.nms_thresh <= 1):
            raise ValueError(f"thresholds lie between 0 and 1, not {self.score_thresh} and {self.nms_thresh}")
        if not (self.topk_candidates_per_level >= 1 and self.detections_per_img >= 1):
            raise ValueError("a detector keeps at least one box a level and an image")


@dataclass(frozen=True)
class Recipe:
    """All of it: the ``steps`` of `tomolens.models.prepare` in order, the windows (None: the whole image), the answer.

    ``half`` says that the authors ran the network in mixed precision, so it may be run so here.
    """

    steps: tuple[Mapping[str, Any], ...] = ()
    windows: Windows | None = None
    answer: Answer = Answer()
    boxes: Boxes | None = None
    half: bool = False

    @classmethod
    def of(cls, card: ModelCard) -> Recipe:
        """Read the recipe of a card.

        Raises
        ------
        ModelError
            If a key or a value is not known.
        """
        try:
            values = dict(card.recipe)
            windows, boxes = values.pop("windows", None), values.pop("boxes", None)
            return cls(
                steps=tuple(values.pop("steps", ())),
                windows=None if windows is None else Windows(**windows),
                answer=Answer(**values.pop("answer", {})),
                boxes=None if boxes is None else Boxes(**boxes),
                **values,
            )
        except (TypeError, ValueError, OverflowError) as wrong:
            raise ModelError(f"The recipe of {card.name} cannot be understood: {wrong}.") from wrong
