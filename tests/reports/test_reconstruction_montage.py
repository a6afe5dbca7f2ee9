from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.core.test_reconstruction_picture import BAD, GOOD, made
from tomolens.core.reconstruction_picture import WARNING_COLOUR
from tomolens.reports.reconstruction_montage import _sheet, write_reconstruction_montage


def texts(sheet) -> list[str]:
    drawn = [text.get_text() for text in sheet.figure.texts]
    return drawn + [text.get_text() for axes in sheet.figure.axes for text in axes.texts]


def test_the_montage_shows_what_was_done_with_letters_bars_and_the_line_on_research_use(tmp_path: Path) -> None:
    path = write_reconstruction_montage(made(), tmp_path / "new" / "montage.png", title="Thorax")
    assert np.asarray(Image.open(path)).std() > 10
    drawn = texts(_sheet(made(), "Thorax"))
    for told in ("Thorax", "before: the scan", "after: net <1>", "after minus before", "-10", "+10 HU", "0", "5 HU"):
        assert told in drawn
    assert [drawn.count(letter) for letter in "RLAPSI"] == [8, 8, 8, 8, 8, 8]
    assert any("Not a medical device" in text for text in drawn)


def test_warnings_stand_above_the_pictures_in_their_own_colour() -> None:
    sheet = _sheet(made(generative=True, checks=(GOOD, BAD)), "Thorax")
    warned = [text for text in sheet.figure.texts if text.get_color() == WARNING_COLOUR]
    assert [text.get_text() for text in warned][:2] == [
        "GAN: texture may be invented.",
        "slice distance 9 mm: OUT OF range (at most 5 mm)",
    ]
    tops = [axes.get_position().y1 for axes in sheet.figure.axes]
    assert min(text.get_position()[1] for text in warned[:2]) > max(tops)


@pytest.mark.parametrize("generative", [False, True])
def test_no_two_lines_lie_over_each_other(generative: bool) -> None:
    sheet = _sheet(made(generative=generative, baseline=made().reference), "Thorax")
    renderer = sheet.figure.canvas.get_renderer() if hasattr(sheet.figure.canvas, "get_renderer") else None
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in sheet.figure.texts]
    for n, (one, box) in enumerate(boxes):
        for other, another in boxes[n + 1 :]:
            assert not box.overlaps(another), (one, other)
