"""What servers, files and other people write reaches no terminal and no build agent as a command."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from codecommit_mirror import cli
from codecommit_mirror.cli.output import echo, print_json, print_table
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.progress import Board, clean, say, working_on

HOSTILE = "a\x1b[2Jb\r\x07 ##vso[task.setvariable variable=x]1\n::add-mask::x\n  ::warning::y\u202e"


def is_harmless(text):
    lines = [line for line in text.split("\n") if line.strip().startswith("::")]
    return "##" not in text and not lines and all(c.isprintable() or c == "\n" for c in text)


@given(st.text())
def test_no_text_is_a_command(text):
    assert is_harmless(clean(text))


def test_ordinary_text_stays_as_it_is():
    text = "error: Größe 3 # 4; run 'codecommit-mirror up NAME': see https://dev.azure.com/c::d"
    assert clean(text) == text


@pytest.mark.parametrize("printed", [lambda: echo(HOSTILE), lambda: print_table(["A"], [[HOSTILE]])])
def test_what_commands_print_is_clean(capsys, printed):
    printed()
    assert is_harmless(capsys.readouterr().out)


def test_json_keeps_the_text_and_holds_no_command(capsys):
    print_json({"message": HOSTILE})
    out = capsys.readouterr().out
    assert "##" not in out
    assert json.loads(out) == {"format": 1, "message": HOSTILE}


def test_progress_and_results_are_clean(tmp_path):
    with (tmp_path / "out").open("w+") as file, Board(["M"], console=Console(file=file, width=500)) as board:
        board.say(HOSTILE)
        with working_on(board.rows["M"]):
            board.rows["M"].begin("Step")
            say(HOSTILE)
        board.rows["M"].fail(HOSTILE)
        file.seek(0)
        assert is_harmless(file.read())
    assert is_harmless(board.rows["M"].message)


def test_an_error_is_clean(monkeypatch, capsys):
    def fail(**_):
        raise MirrorError(HOSTILE)

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert is_harmless(capsys.readouterr().err)
