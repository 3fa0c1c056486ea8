"""Text for terminals: lines of 80 columns, of which commands and links can be copied."""

from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.cli.output import wrap

WORDS = st.lists(st.text("abc-/.", min_size=1, max_size=70), min_size=1, max_size=40)


@given(WORDS)
def test_lines_fit_and_no_word_is_lost_or_broken(words):
    lines = wrap(" ".join(words), first="> ", rest="  ")
    assert all(len(line) <= 80 for line in lines)
    assert [word for line in lines for word in line[2:].split()] == words


def test_a_quoted_command_and_a_link_stay_on_one_line():
    link = "https://dev.azure.com/contoso/" + "x" * 80
    lines = wrap(f"{'word ' * 14}run 'codecommit-mirror pipeline run Shop' {link}")
    assert "'codecommit-mirror pipeline run Shop'" in lines[1]
    assert lines[2] == link
