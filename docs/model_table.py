"""Write the table of models into README.md, from the metadata of the bundles.

    python docs/model_table.py

A test compares the two, so that the README cannot claim what no card says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tomolens import list_models

if TYPE_CHECKING:
    from tomolens.core.card import ModelCard

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: written by docs/model_table.py -->", "<!-- end of models -->"


def with_table(readme: str) -> str:
    """The README's text with a fresh table between its two marks."""
    between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return between.sub(lambda _: f"{BEGIN}\n{table()}\n{END}", readme)


def table() -> str:
    """Every shipped model, and under it what was measured."""
    return "\n\n".join(_model(card) for card in list_models() if not card.origin)


def _model(card: ModelCard) -> str:
    takes = (
        f"{card.input.modality} in {card.input.unit or 'any unit'}, voxels of at most {card.input.max_spacing_mm:g} mm"
    )
    rows = [
        f"| **{card.name}** {card.version} | {card.summary} |",
        "|---|---|",
        f"| takes | {takes} |",
        *([f"| threshold | {card.default_min_score:g} by default |"] if card.default_min_score else []),
        f"| trained on | {card.trained_on} |",
        f"| licence | {card.licence} |",
        *(f"| {name.replace('_', ' ')} | {_value(value)} |" for name, value in card.figures.items()),
    ]
    return "\n".join(rows)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
