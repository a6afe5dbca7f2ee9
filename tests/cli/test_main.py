from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tomolens as package


def test_the_version_is_that_of_the_package(tomolens):
    assert tomolens("--version").stdout == f"tomolens {package.__version__}\n"


def test_without_a_command_the_help_is_shown(tomolens):
    assert "Usage: " in tomolens().output


@pytest.mark.parametrize(
    "words", [[], ["detect"], ["reconstruct"], ["simulate", "low-dose"], ["info"], ["models"], ["train"]], ids=" ".join
)
def test_each_command_has_a_help_that_fits_a_terminal(tomolens, words):
    result = tomolens(*words, "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("word", ["findings.csv", "patient LPS", "Exit codes", "130", "error.txt", "summary.csv"])
def test_the_help_of_detect_says_what_is_written_where_and_what_the_exit_codes_mean(tomolens, word):
    assert word in tomolens("detect", "--help").stdout


def test_the_help_is_there_within_a_second_and_without_torch():
    code = "import sys, tomolens.cli.main; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    taken = after.children_user + after.children_system - before.children_user - before.children_system
    assert taken < 1.0
