"""What every training run is made of, and the folder that it lives in.

A trainer puts four objects together and keeps the loop::

    config = TrainConfig(...)                        # training/config.py: RunConfig and the trainer's own fields
    with team_of(processes, device, follow) as team: # training/team.py: one process or several
        learner = Learner(start_network(config), config, team)   # training/learner.py: EMA, AdamW, schedule, bfloat16
        folder = RunFolder(path, config)             # this module: config.json, checkpoint.pt, log.csv, log.png
        state = folder.resume(team.backend.device)   # None in a new run
        if state: learner.resume(state)
        for number in range(state["round"] if state else 0, config.rounds):
            losses = learner.train(batches, loss, progress)
            if team.leads: folder.save({**learner.state(), "round": number + 1}, {"loss": ..., "seconds": ...})

A loss gives each of its terms as a sum and a count (`learner.Terms`). A checkpoint holds the log too, so that both are
of the same round however a run ends; what is done after the last checkpoint is lost and done again.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tomolens.core.errors import OptionError, ReadError
from tomolens.io.atomic import whole_file
from tomolens.training.curves import draw_log
from tomolens.training.fingerprint import differences

if TYPE_CHECKING:
    from tomolens.training.config import RunConfig
    from tomolens.training.fingerprint import Record

CHECKPOINT = "checkpoint.pt"
CONFIG = "config.json"
LOG = "log.csv"
PLOT = "log.png"
RECORD = "record"
"""In a checkpoint: what the run is made from (`tomolens.training.fingerprint.Record`)."""
_SHOWN = 5

Row = Mapping[str, float]
"""A line of the log, by column: first of all ``round`` and ``steps``."""


@dataclass
class RunFolder:
    """The folder of one run: its configuration, its last checkpoint and its log."""

    path: Path
    config: RunConfig
    log: list[dict[str, float]] = field(default_factory=list)

    def resume(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint; None where there is none yet.

        Raises
        ------
        OptionError
            If the folder holds a run with another configuration.
        ReadError
            If the checkpoint is damaged.
        """
        file = self.path / CHECKPOINT
        if not file.exists():
            return None
        saved = type(self.config).from_json((self.path / CONFIG).read_text(encoding="utf-8"), str(self.path / CONFIG))
        if not saved.gives_the_same(self.config):
            raise OptionError(
                f"{self.path} holds a run with another configuration; choose another folder, or the same."
            )
        state = load_checkpoint(self.path, device)
        self.log = state["log"] if "log" in state else read_log(self.path)
        return state

    def check_data(self, began: Mapping[str, Any], now: Record) -> None:
        """Refuse to go on with other data than the run of a checkpoint began with.

        Where the files lie does not matter, nor when they were written.

        Raises
        ------
        ReadError
            If the data differ in number, order or content; it is named what does. If the run did not note its data.
        """
        if RECORD not in began:
            raise ReadError(
                f"{self.path} holds a run that did not note what it is trained on as this version does, so it is not "
                "known whether these are the same data; train anew, in another folder."
            )
        found = differences(began[RECORD], now)
        if found:
            said = "; ".join(f"{kind}: {_listed(names)}" for kind, names in found.items())
            raise ReadError(
                f"{self.path} was trained on other data than these ({said}); go on with the same data, or in another "
                "folder."
            )

    def save(self, state: Mapping[str, Any], row: Row) -> None:
        """End a round: its checkpoint, and one more line in the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.log.append(dict(row))
        with whole_file(self.path / CONFIG) as temporary:
            temporary.write_text(self.config.to_json(), encoding="utf-8")
        with whole_file(self.path / CHECKPOINT) as temporary:
            torch.save({**state, "log": self.log}, temporary)
        with whole_file(self.path / LOG) as temporary:
            _write_log(temporary, self.log)
        with whole_file(self.path / PLOT) as temporary:
            draw_log(self.log, temporary)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def load_checkpoint(run: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The last checkpoint of a run, read without running any code of it.

    Raises
    ------
    OptionError
        If ``run`` holds none.
    ReadError
        If it is damaged.
    """
    file = run / CHECKPOINT
    if not file.is_file():
        raise OptionError(f"{run} holds no {CHECKPOINT}; give the folder that a training wrote.")
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as wrong:
        raise ReadError(f"{file} is no checkpoint that can be read: {wrong}.") from wrong
    return state


def read_log(run: Path) -> list[dict[str, float]]:
    """The log of a run, a line a round; columns as they are named in it.

    Raises
    ------
    ReadError
        If there is none, or something in it is no number.
    """
    file = run / LOG
    if not file.is_file():
        raise ReadError(f"{run} holds no {LOG}; a training writes it after its first round.")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return [{name: float(value) for name, value in row.items() if value != ""} for row in rows]
    except (TypeError, ValueError) as wrong:
        raise ReadError(f"{file} holds something that is no number: {wrong}.") from wrong


def _write_log(file: Path, rows: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, restval="")
        table.writeheader()
        table.writerows({name: _written(value) for name, value in row.items()} for row in rows)


def _written(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e12 else f"{value:.4g}"
