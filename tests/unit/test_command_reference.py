"""docs/commands.md says what ``--help`` says. UPDATE_SNAPSHOTS=1 writes it anew."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from codecommit_mirror.cli import cli

REFERENCE = Path(__file__).parents[2] / "docs" / "commands.md"
HEAD = "# Commands\n\nWhat `--help` says of each. Progress goes to standard error, results to standard output.\n"


def commands(command=cli, path=()):
    """Every command with its path, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], (*path, name))


def help_of(path):
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="codecommit-mirror", terminal_width=100)
    assert result.exit_code == 0
    return result.output


def test_the_reference_is_what_help_says():
    sections = [f"\n## {' '.join(('codecommit-mirror', *path))}\n\n```\n{help_of(path)}```\n" for path, _ in commands()]
    text = HEAD + "".join(sections)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        REFERENCE.write_text(text)
    assert REFERENCE.read_text() == text


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value)[:40])
def test_every_command_and_option_is_explained(path, command):
    assert command.help
    assert command.get_short_help_str(200).endswith((".", "..."))
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path}: {parameter.name}"
