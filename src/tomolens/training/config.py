"""The frozen configuration of a training run, and its JSON: what is unknown or of the wrong kind is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from tomolens.core.errors import OptionError

Record = TypeVar("Record")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run, apart from its data; saved with it. A trainer adds its own fields.

    Parameters
    ----------
    rounds, steps, batch
        Rounds of ``steps`` batches; after each a checkpoint is written.
    learning_rate
        Peak of AdamW's one cosine, after a warm-up of 2 % of the steps.
    ema
        Decay a step of the averaged weights, which are the ones that are published.
    workers
        Processes that prepare patches; 0 prepares them in this one. Does not change a patch.
    echo
        Times that each example is shown on average, for a GPU that is faster than the processes which prepare them
        (`tomolens.training.batches`).
    start_from
        Name or folder of the model whose weights the run starts from (fine-tuning); random weights where None.
    network, settings
        A function of `tomolens.models.networks` and its arguments.

    Raises
    ------
    OptionError
        If a number is outside what is accepted.
    """

    seed: int = 20
    rounds: int = 7
    steps: int = 300
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    ema: float = 0.995
    workers: int = 1
    echo: int = 1
    start_from: str | None = None
    network: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "batch", "echo"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is at least 1, not {getattr(self, name)}.")
        for name in ("seed", "workers", "weight_decay"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is at least 0, not {getattr(self, name)}.")
        if not 0 <= self.ema < 1:
            raise OptionError(f"ema is at least 0 and below 1, not {self.ema}.")
        if not self.learning_rate > 0:
            raise OptionError(f"learning_rate is above 0, not {self.learning_rate}.")

    @property
    def total_steps(self) -> int:
        """Batches in the whole run."""
        return self.rounds * self.steps

    def indices(self, number: int) -> range:
        """The examples that round ``number`` is made of, both counted from 0."""
        count = -(-self.steps // self.echo) * self.batch
        return range(number * count, (number + 1) * count)

    def to_json(self) -> str:
        """As saved beside the checkpoint."""
        return json.dumps(asdict(self), indent=2, default=list)

    @classmethod
    def from_json(cls, text: str, where: str = "the configuration") -> Self:
        """The inverse of `to_json`; what is left out keeps its default.

        Raises
        ------
        OptionError
            If it is not JSON, or a key is unknown or its value of the wrong kind; the message names both.
        """
        try:
            values = json.loads(text)
        except ValueError as broken:
            raise OptionError(f"{where} is not JSON: {broken}.") from broken
        return record_of(cls, values, where)

    def gives_the_same(self, other: RunConfig) -> bool:
        """Whether a run of either gives the same weights."""
        return replace(self, workers=0).to_json() == replace(other, workers=0).to_json()


def record_of(kind: type[Record], values: Any, where: str) -> Record:
    """A dataclass from what JSON held, each value checked against the field's type; ``where`` is told in refusals.

    Raises
    ------
    OptionError
        If a key is unknown, or a value of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where} holds {values!r} where an object with keys is needed.")
    hints = get_type_hints(kind)
    accepted = [f.name for f in fields(kind)]  # type: ignore[arg-type] # a dataclass, which TypeVar cannot say
    unknown = sorted(set(values) - set(accepted))
    if unknown:
        raise OptionError(f"{where} has the unknown key {unknown[0]!r}; accepted are {', '.join(accepted)}.")
    return kind(**{name: _value_of(hints[name], value, f"{where}, {name}") for name, value in values.items()})


def _value_of(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return record_of(kind, value, where)  # type: ignore[arg-type] # is_dataclass says it may be an instance
    if origin is UnionType:
        return None if value is None else _value_of(inner[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return _tuple_of(inner, value, where)
    wanted = (int, float) if kind is float else origin or kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise OptionError(f"{where}: {value!r} is not of the kind that is needed, {_name(kind)}.")
    return value


def _tuple_of(inner: tuple[Any, ...], values: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    kinds = inner[:1] * len(values) if inner[-1] is Ellipsis else inner
    if len(kinds) != len(values):
        raise OptionError(f"{where}: {list(values)!r} has {len(values)} values, {len(kinds)} are needed.")
    return tuple(_value_of(kind, value, where) for kind, value in zip(kinds, values, strict=True))


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
