from __future__ import annotations

import pytest

from tomolens.core.progress import Step, silent


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0), (5, 4, 1.0), (7, 0, 0.0)]
)
def test_a_step_says_which_share_of_its_stage_is_done(done: int, total: int, fraction: float) -> None:
    assert Step("read slices", done, total).fraction == fraction


def test_silence_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent(Step("read slices", 1, 2))
    assert capsys.readouterr() == ("", "")
