"""The shell's completion of commands and mirror names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "codecommit-mirror"


def complete(folder, *words):
    environment = {
        **os.environ,
        "_CODECOMMIT_MIRROR_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("codecommit-mirror", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([COMMAND], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mirrors.yaml").write_text("mirrors:\n  MyRepoReplica: {}\n  MyOther: {}\n  third: {}\n")
    return tmp_path


@pytest.mark.parametrize("command", ["up", "down", "rotate", "status", "verify", "sync"])
def test_mirror_names_are_completed(folder, command):
    assert complete(folder, command, "My") == ["MyRepoReplica", "MyOther"]


def test_names_below_a_group_are_completed(folder):
    assert complete(folder, "pipeline", "run", "th") == ["third"]


def test_commands_are_completed(folder):
    assert complete(folder, "ro") == ["rotate"]


def test_a_file_that_is_missing_or_wrong_completes_nothing(tmp_path):
    assert complete(tmp_path, "up", "My") == []
    (tmp_path / "mirrors.yaml").write_text("mirrors: [")
    assert complete(tmp_path, "up", "My") == []
