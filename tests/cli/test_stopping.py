"""What a stop leaves behind, tried on a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import scans
from tomolens import read_detection

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
ROOT = Path(__file__).parents[2]


@dataclass
class Call:
    """``tomolens detect`` of three series in a process of its own, a second for each."""

    root: Path

    @property
    def out(self) -> Path:
        return self.root / "results"

    def start(self, window_seconds: float = 0.0) -> subprocess.Popen[str]:
        environment = {**os.environ, "FAKE_SECONDS": str(window_seconds), "FAKE_WEIGHTS": str(self.root / "model")}
        words = [sys.executable, "-m", "tests.cli.fakes", "detect", str(self.root / "scans"), "-o", str(self.out)]
        return subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until_the_second_series(self) -> subprocess.Popen[str]:
        """A process in the midst of the second series: the first is finished, the third not begun."""
        process = self.start(window_seconds=0.7)
        end = time.monotonic() + 120
        while not list(self.out.glob("[!.]*/findings.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(0.8)
        return process

    def finished(self) -> list[Path]:
        return sorted(path.parent for path in self.out.glob("[!.]*/findings.json"))

    def begun(self) -> list[Path]:
        """Temporary files and folders."""
        return list(self.out.rglob(".*"))


@pytest.fixture
def call(tmp_path):
    for seed in range(3):
        scans.ct(tmp_path / "scans" / str(seed), seed=seed, description=f"Series {seed}")
    return Call(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_whole_results_alone_and_the_next_call_goes_on(call, number, code):
    process = call.until_the_second_series()
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "Traceback" not in told
    assert len(call.finished()) == 1
    assert not call.begun()
    assert json.loads((call.out / "summary.json").read_text())["interrupted"]
    assert (call.out / "index.html").is_file()
    _goes_on(call, finished=1)


def test_a_killed_process_leaves_no_half_written_result_and_the_next_call_goes_on(call):
    process = call.until_the_second_series()
    process.kill()
    process.communicate(timeout=60)
    for folder in call.finished():
        assert len(read_detection(folder)) == 2
    _goes_on(call, finished=len(call.finished()))


def _goes_on(call, finished):
    process = call.start()
    answer, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert f"{3 - finished} done, {finished} skipped" in answer
    assert len(call.finished()) == 3
