"""docs/commands.md says what ``--help`` says. UPDATE_SNAPSHOTS=1 writes it anew."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from codecommit_mirror.cli import COMMANDS, cli

REFERENCE = Path(__file__).parents[3] / "docs" / "commands.md"
HEAD = """\
# Commands

The output of `--help` for each command. Progress goes to standard error, results to standard output.

**`--json`** prints one JSON object, with the number of its [format](formats.md). A command that lists things puts them
under a plural key, as an array of objects: `status` under `mirrors`, `credentials list` under `credentials`, `pipeline
variables` under `variables`. Keys are in snake_case, times are in ISO 8601, and what is unknown is `null`. Keys may be
added later.

**Exit status**, of every command: 0 success; 1 something failed (one sentence on standard error); 2 wrong usage, or a
file of yours is wrong; 3 something differs or needs attention; 130 after Ctrl-C. 3 is what `plan --exit-code` returns
if `up` would change anything, `verify` if a ref differs, `status` if there are warnings and no failures, `up` if a
mirror needs a person, `sync` and `pipeline run` for *succeeded with issues*.
"""


def commands(command=cli, path=()):
    """Every command with its path, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            yield from commands(command.get_command(context, name), (*path, name))


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


def test_the_summaries_in_the_table_of_commands_are_the_commands_own():
    for name, (_, summary) in COMMANDS.items():
        assert cli.get_command(click.Context(cli), name).get_short_help_str(200) == summary


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda value: str(value)[:40])
def test_every_command_and_option_is_explained(path, command):
    assert command.help
    assert command.get_short_help_str(200).endswith((".", "..."))
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path}: {parameter.name}"
