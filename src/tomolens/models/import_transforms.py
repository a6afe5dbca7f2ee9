"""The transforms in a bundle's lists: which entry each one changes, and which of its arguments say something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tomolens.core.errors import ModelError
from tomolens.models.import_config import Config, Unknown, only_data
from tomolens.models.prepare import INTENSITY

IMAGE, ANSWER = "image", "pred"
"""The entries of MONAI's dictionary that its engines hand to the network, and put the network's answer into."""
MOVES_NOTHING = (
    "LoadImage EnsureChannelFirst AsChannelFirst AddChannel EnsureType CastToType ToTensor ToDevice DeleteItems "
    "SelectItems FromMetaTensor Identity SaveImage SaveClassification"
).split()
"""Transforms that read, write or convert: a volume is read already, and its result is written by Tomolens."""
COPIES = ("CopyItems", "ConcatItems")
"""Transforms that make one entry from others."""
KNOWN = (
    *("Orientation", "Spacing", "CropForeground", "Resize", "DivisiblePad"),
    *INTENSITY,
    *MOVES_NOTHING,
    *COPIES,
    *("Activations", "AsDiscrete", "Invert", "KeepLargestConnectedComponent", "Lambda"),
    *("ClipBoxToImage", "AffineBoxToWorldCoordinate", "ConvertBoxMode"),
)
"""Every transform that is understood somewhere. Each changes its own keys and what `_MADE` names, nothing else."""
_MADE = ("name", "names", "overwrite", "start_coord_key", "end_coord_key")
"""Arguments that name an entry that a transform writes besides its keys."""
_NO_MATTER = "_target_ _disabled_ _desc_ _mode_ keys allow_missing_keys meta_keys meta_key_postfix lazy".split()
"""Arguments of any transform that change no number, or name where MONAI keeps something."""
_BY_KEY = (
    "mode nonzero channel_wise clip sigmoid softmax argmax threshold to_onehot dtype align_corners anti_aliasing "
    "anti_aliasing_sigma nearest_interp orig_keys post_func to_tensor"
).split()
"""Arguments that may be a list with one value for each key."""
_CONVERSIONS = ("EnsureType", "CastToType", "ToTensor")
_COMPOSE = ("_target_", "_desc_", "transforms", "map_items", "unpack_items", "log_stats")
_FLOATS = ("float", "double", "float32", "float64")


def monais(target: str) -> str:
    """The last word of a ``_target_`` that stands alone or lies in MONAI; empty of any other."""
    place, _, name = target.rpartition(".")
    return name if not place or place.split(".")[0] == "monai" else ""


class Transform:
    """One transform of a bundle's list: its name without the ``d`` of dictionary transforms, arguments and place."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict) or not isinstance(values.get("_target_"), str):
            raise ModelError(f"{where}: a transform has a _target_; this is {shown(values)}.")
        self.where, self.values = where, values
        self.target = values["_target_"].rpartition(".")[2]
        names = (self.target, self.target[:-1]) if monais(values["_target_"]) else ()
        self.name = next((name for name in names if name in KNOWN), values["_target_"])
        self.is_dictionary = "keys" in values or self.name != self.target

    @property
    def keys(self) -> list[str]:
        """The entries of MONAI's dictionary that it changes."""
        keys = self.values.get("keys", [])
        keys = keys if isinstance(keys, list) else [keys]
        if not all(isinstance(key, str) for key in keys) or (self.is_dictionary and not keys):
            raise self.refused(f"the entries that it changes cannot be told from {shown(self.values.get('keys'))}")
        return keys

    @property
    def disabled(self) -> bool:
        """Whether the bundle has switched it off."""
        switch = self.values.get("_disabled_", False)
        if not isinstance(switch, bool):
            raise self.refused(f"whether it is disabled cannot be told from {shown(switch)}")
        return switch

    def concerns(self, entry: str) -> bool:
        """Whether it changes this entry; False where it is known to leave it alone.

        Raises
        ------
        ModelError
            If that cannot be told, or if the entry is made from another one or copied to one.
        """
        if not self.is_dictionary:
            return True
        if self.name not in KNOWN and entry not in self.keys:
            raise self.refused(f"it works on {', '.join(self.keys)} and is not known to leave {entry!r} alone")
        made = [part for name in _MADE for part in _listed(self.values.get(name)) if not isinstance(part, bool)]
        if entry in made or any(not isinstance(part, str) for part in made):
            raise self.refused(f"it makes the entry {shown(made[0])} from {', '.join(self.keys)}, which is not mapped")
        if self.name in COPIES and entry == ANSWER and entry in self.keys:
            raise self.refused(f"it copies {entry!r} to {', '.join(made)}, which is not mapped")
        return entry in self.keys and self.name not in COPIES

    def arguments(self, key: str, *accepted: str, ignored: Sequence[str] = ()) -> dict[str, Any]:
        """The plain arguments of those names, of a list a key's own; any other argument that matters is refused."""
        found = {}
        for name, value in self.values.items():
            own = value[self.keys.index(key)] if self._is_by_key(name, value, key) else value
            if name in accepted:
                found[name] = only_data(own, f"{self.where}: {self.target}: {name}")
            elif name == "dtype":
                self._check_dtype(own)
            elif name not in _NO_MATTER and name not in ignored:
                raise self.refused(f"the argument {name} is not mapped; it is {shown(value)}")
        return found

    def check_conversion(self, key: str) -> None:
        """Refuse a conversion to whole numbers or half precision, which would change what the network reads.

        Raises
        ------
        ModelError
            With the type.
        """
        if self.name in _CONVERSIONS and "dtype" in self.values:
            value = self.values["dtype"]
            self._check_dtype(value[self.keys.index(key)] if self._is_by_key("dtype", value, key) else value)

    def _check_dtype(self, value: Any) -> None:
        text = value.expression if isinstance(value, Unknown) else value
        if text is not None and str(text).removeprefix("$").rpartition(".")[2] not in _FLOATS:
            raise self.refused(f"dtype {shown(value)} is not mapped; float32 is")

    def _is_by_key(self, name: str, value: Any, key: str) -> bool:
        return name in _BY_KEY and isinstance(value, list) and len(value) == len(self.keys) and key in self.keys

    def flag(self, given: dict[str, Any], name: str, default: bool = False) -> bool:
        """A switch among the arguments; None says the default.

        Raises
        ------
        ModelError
            If it is neither true nor false.
        """
        value = given.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refused(f"{name} is {shown(value)}, neither true nor false")
        return default if value is None else value

    def refused(self, reason: str) -> ModelError:
        """The error that says why this transform is not taken."""
        return ModelError(f"{self.where}: {self.target}: {reason}.")


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = value.expression if isinstance(value, Unknown) else f"{value!r:.120}"
    return text if len(text) < 120 else f"{text[:117]}..."


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def transforms_of(config: Config, key: str, entry: str) -> Iterator[Transform]:
    """The transforms of ``preprocessing`` or ``postprocessing`` that change an entry, each with its place.

    Raises
    ------
    ModelError
        If they are no plain list, or if what one of them does to the entry cannot be told.
    """
    for transform in all_transforms(config, key):
        if (transform.disabled and transform.name != "Spacing") or not transform.concerns(entry):
            continue
        yield transform


def all_transforms(config: Config, key: str) -> Iterator[Transform]:
    """Every transform of ``preprocessing`` or ``postprocessing``, those that are switched off too.

    Raises
    ------
    ModelError
        If they are no plain list.
    """
    parts = _composed(config, key) if key in config else []
    if not isinstance(parts, list):
        raise ModelError(f"{config.where(key)}: a list of transforms is needed, not {shown(parts)}.")
    for number, values in enumerate(parts):
        yield Transform(values, config.where(key, "transforms", number))


def _composed(config: Config, key: str) -> Any:
    """The list of a ``Compose``; of one that runs its transforms lazily, in another order or not at all, nothing."""
    composed = config.at(key)
    if not isinstance(composed, dict):
        return composed
    target = str(composed.get("_target_"))
    if monais(target) != "Compose":
        raise ModelError(f"{config.where(key)}: {target} is not mapped; Compose is.")
    for name, value in composed.items():
        if name not in _COMPOSE and value not in (None, False, {}):
            raise ModelError(f"{config.where(key, name)}: {shown(value)} is not mapped.")
    return composed.get("transforms", [])
