"""Text for terminals: lines of 80 columns, of which commands and links can be copied."""

import contextlib
import io

from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.cli.output import print_wrapped

WORDS = st.lists(st.text("abc-/.", min_size=1, max_size=70), min_size=1, max_size=40)


@given(WORDS)
def test_lines_fit_and_no_word_is_lost_or_broken(words):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_wrapped(" ".join(words), first="> ", rest="  ")
    lines = printed.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [word for line in lines for word in line[2:].split()] == words


def test_a_quoted_command_and_a_link_stay_on_one_line(capsys):
    link = "https://dev.azure.com/contoso/" + "x" * 80
    print_wrapped(f"{'word ' * 14}run 'codecommit-mirror pipeline run Shop' {link}")
    lines = capsys.readouterr().out.splitlines()
    assert "'codecommit-mirror pipeline run Shop'" in lines[1]
    assert lines[2] == link
