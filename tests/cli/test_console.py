from __future__ import annotations

import io

from rich.console import Console

from tomolens.cli.console import Narrator
from tomolens.core.progress import Step


def _told(*, terminal: bool) -> str:
    page = io.StringIO()
    with Narrator(Console(file=page, force_terminal=terminal, width=120)) as narrator:
        narrator.begin(3)
        narrator.expect(2)
        narrator.count("skipped  one")
        narrator.step(Step("find nodules", 3, 4))
        narrator._bars.refresh()
        narrator.count("done     two [bold]not markup[/bold]")
        narrator._bars.refresh()
        narrator.step(Step("write", 0, 0))
        narrator._bars.refresh()
    return page.getvalue()


def test_a_terminal_shows_the_stage_the_series_and_the_time_left():
    told = _told(terminal=True)
    assert "find nodules" in told
    assert "3/4" in told
    assert "2/2" in told
    assert "left" in told


def test_a_stage_of_unknown_length_does_not_inherit_the_length_of_the_one_before():
    assert "0/?" in _told(terminal=True)


def test_without_a_terminal_there_are_lines_alone_and_text_is_no_markup():
    assert _told(terminal=False) == "[1/3] skipped  one\n[2/3] done     two [bold]not markup[/bold]\n"


def test_a_remark_stays_as_a_line_and_is_printed_once():
    page = io.StringIO()
    with Narrator(Console(file=page, force_terminal=False, width=120)) as narrator:
        for _ in range(2):
            narrator.step(Step("Out of memory on cuda:0; going on with the CPU.", 0, 0, remark=True))
    assert page.getvalue() == "Out of memory on cuda:0; going on with the CPU.\n"
