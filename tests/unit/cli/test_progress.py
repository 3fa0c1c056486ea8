"""One mirror's steps: what a terminal shows, and plain lines elsewhere."""

import io

import pyte
import pytest
from rich.console import Console

from codecommit_mirror.progress import Board, say, step, working_on

LONG = "set the variable AWS_REPO_URL to git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyRepoReplica " * 2


def screen_of(width, steps, *, fail=False):
    """Return the lines that a terminal of a width shows after the steps."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, height=60, highlight=False, legacy_windows=False)
    try:
        titles = [*steps, "Never begun"] if fail else list(steps)
        with Board(["a"], titles, console) as board, working_on(board.rows["a"]):
            for title, details in steps.items():
                with step(title):
                    for line in details:
                        say(line)
                    if fail and title == list(steps)[-1]:
                        raise RuntimeError
    except RuntimeError:
        assert fail
    screen = pyte.Screen(width, 60)
    pyte.Stream(screen).feed(output.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


def without_times(line):
    return line.rpartition("  ")[0] if line.endswith(" s") else line


@pytest.mark.parametrize("width", [80, 120])
def test_details_stay_below_their_step_and_wrap_with_indentation(width):
    lines = screen_of(width, {"Preflight": ["in order"], "Connect": [LONG, "done [bold]"], "Run": []})
    assert [without_times(line) for line in lines if not line.startswith(" ")] == ["✔ Preflight", "✔ Connect", "✔ Run"]
    assert lines[1] == "    in order"
    details = lines[3 : lines.index("    done [bold]")]
    assert len(details) > 1
    assert all(line.startswith("    ") and not line.startswith("     ") for line in details)
    assert "".join(line.strip() + " " for line in details).split() == LONG.split()


def test_more_details_than_a_step_shows_while_it_runs_all_stay():
    lines = screen_of(80, {"Deploy": [f"event {number}" for number in range(20)]})
    assert lines[1:] == [f"    event {number}" for number in range(20)]


def test_a_failure_marks_its_step_and_says_what_was_not_done():
    lines = screen_of(80, {"One": [], "Two": ["why"]}, fail=True)
    assert [without_times(line) for line in lines] == ["✔ One", "✘ Two", "    why", "not done: Never begun"]


def test_elsewhere_it_is_one_plain_line_after_the_other():
    output = io.StringIO()
    with Board(["a"], ["One"], Console(file=output, width=40)) as board, working_on(board.rows["a"]), step("One"):
        say(LONG.strip())
    assert output.getvalue() == f"[   0.0 s] One\n           {LONG.strip()}\n"
