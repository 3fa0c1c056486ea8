"""Many mirrors at once: what the board shows, and that one which fails stops no other."""

import io
import threading
import time

import click
import pyte
import pytest
from rich.console import Console

from codecommit_mirror.aws import cdk
from codecommit_mirror.cli import results
from codecommit_mirror.cli.options import contexts_of
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations.batches import Policy, for_each_mirror
from codecommit_mirror.progress import Board, say, step


def plain(names):
    output = io.StringIO()
    return Board(names, console=Console(file=output, width=40)), output


def journey(context, row):
    with step("One"):
        say("a detail")
        if context == "fails":
            raise MirrorError("the reason; do this.")
    row.succeed(f"{row.name} is fine.")
    return context.upper()


def test_one_that_fails_does_not_stop_the_others():
    board, output = plain(["a", "b", "c"])
    with board:
        assert for_each_mirror({"a": "x", "b": "fails", "c": "y"}, board, journey, Policy()) == {"a": "X", "c": "Y"}
    assert [row.result for row in board.rows.values()] == ["succeeded", "failed", "succeeded"]
    lines = [line.partition("] ")[2] or line.strip() for line in output.getvalue().splitlines()]
    assert "b: FAILED: the reason; do this." in lines
    assert lines[lines.index("b: FAILED: the reason; do this.") + 1] == "a detail"
    assert "a: is fine." in lines
    assert lines.count("a detail") == 1


def test_our_own_mistake_is_raised_once_the_others_have_ended():
    board, _ = plain(["a", "b"])

    def work(_, row):
        if row.name == "a":
            raise ZeroDivisionError
        time.sleep(0.05)
        row.succeed("done")

    with board, pytest.raises(ZeroDivisionError):
        for_each_mirror({"a": None, "b": None}, board, work, Policy(workers=2))
    assert board.rows["b"].result == "succeeded"
    assert "internal error (ZeroDivisionError)" in board.rows["a"].message


def test_no_more_than_so_many_are_worked_on_at_a_time():
    board, _ = plain([str(number) for number in range(20)])
    working, most, lock = set(), [0], threading.Lock()

    def work(_, row):
        with lock:
            working.add(row.name)
            most[0] = max(most[0], len(working))
        time.sleep(0.005)
        working.discard(row.name)

    for_each_mirror(dict.fromkeys(board.rows), board, work, Policy(workers=3))
    assert most[0] == 3


def test_what_there_is_no_time_for_is_left(monkeypatch):
    board, output = plain(["a", "b", "c"])
    elapsed = 0
    monkeypatch.setattr(board, "seconds", lambda: elapsed)

    def work(context, row):
        nonlocal elapsed
        elapsed += 60
        return journey(context, row)

    with board:
        items = {"a": "x", "b": "fails", "c": "y"}
        assert for_each_mirror(items, board, work, Policy(workers=1, minutes=2)) == {"a": "X"}
    assert [row.result for row in board.rows.values()] == ["succeeded", "failed", "left"]
    assert "c: " not in output.getvalue()
    rows = board.rows.values()
    assert results.sentence(rows) == "1 of 3 mirrors succeeded; failed: b; left for lack of time: c."
    assert [one["result"] for one in results.as_objects(rows)] == ["succeeded", "failed", "left"]
    assert "| c |" not in results.summary("Mirrors", rows)
    assert "|" not in results.summary("Mirrors", list(rows)[2:])


def test_what_was_left_on_the_way_says_why():
    board, output = plain(["a", "other"])

    def work(_, row):
        with step("Wait for the run"):
            row.leave("run 7 has not ended")

    with board:
        for_each_mirror({"a": None}, board, work, Policy())
    assert "a: left: run 7 has not ended" in output.getvalue()
    assert "| a | left | Wait for the run | 0 s | run 7 has not ended |" in results.summary("Runs", board.rows.values())


def test_the_table_of_500_fits_on_a_terminal_and_counts_them():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, height=12, highlight=False, legacy_windows=False)
    names = [f"mirror-{number}" for number in range(500)]
    board, started = Board(names, console=console), time.monotonic()
    with board:
        for row in list(board.rows.values())[:30]:
            row.begin("Run and verify")
            row.details.append("step: Mirror to CodeCommit [bold]")
        board.rows["mirror-40"].succeed("mirror-40 is up.")
        board.rows["mirror-41"].fail("the reason.")
        counts, shown, before = "1 done, 1 failed, 30 working, 468 waiting, of 500", [], None
        # A thread of its own draws the screen, when it gets to it; half of a frame may be there.
        while (shown[-1:] != [counts] or shown != before) and time.monotonic() < started + 120:
            time.sleep(0.1)
            before = shown
            screen = pyte.Screen(100, 12)
            pyte.Stream(screen).feed(output.getvalue().replace("\n", "\r\n"))
            shown = [line.rstrip() for line in screen.display if line.strip()]
    assert shown[-1] == counts
    live = [line for line in shown if "Run and verify" in line]
    assert 5 <= len(live) <= 9
    assert "step: Mirror to CodeCommit [bold]" in live[0]
    assert any(line.startswith("✔ mirror-40  is up.") for line in shown)
    assert any(line.startswith("✘ mirror-41  the reason.") for line in shown)


def test_the_summary_shows_failures_first_and_nothing_leaves_its_cell():
    board, _ = plain(["a", "b"])
    board.rows["a"].succeed("fine")
    board.rows["b"].fail("a | b\n<script>")
    text = results.summary("Mirrors", board.rows.values())
    assert text.index("| b |") < text.index("| a |")
    assert r"a \| b &lt;script&gt;" in text
    assert results.sentence(board.rows.values()).startswith("1 of 2 mirrors succeeded; failed: b.")
    assert [one["result"] for one in results.as_objects(board.rows.values())] == ["succeeded", "failed"]


def test_a_person_is_asked_for_each_secret_once(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(click, "prompt", lambda text, **_: asked.append(text.split()[0]) or time.sleep(0.05) or "x")
    board, _ = plain(["a", "b", "c"])
    mirrors = [single_mirror(name, f"https://dev.azure.com/contoso/Shop/_git/{name}") for name in board.rows]
    command = click.Context(click.Command("up"))
    command.params = {"config": tmp_path / "mirrors.yaml"}
    with command:
        contexts = contexts_of(mirrors, board)

    def work(context, row):
        row.succeed(context.ask("AZURE_GIT_USERNAME") + context.ask("AZURE_GIT_PASSWORD"))

    with board:
        for_each_mirror(contexts, board, work, Policy())
    assert sorted(asked) == ["AZURE_GIT_PASSWORD", "AZURE_GIT_USERNAME"]


FIRST = """\
✅  A
B-stack | 1/4 | 11:38:25 AM | CREATE_FAILED           | AWS::CodeCommit::Repository | Replica/Repository (R) \
Repository named B already exists
❌  B failed to deploy
"""
SECOND = "✅  C (C-stack)\n\n✅  D (no changes)\n"


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Let the CLI print one text after another, and succeed with the one that ends it; return its calls."""

    def install(*texts, succeeds=True):
        folder = tmp_path / "node_modules" / ".bin"
        folder.mkdir(parents=True)
        for number, text in enumerate(texts, 1):
            (tmp_path / str(number)).write_text(text)
        last = len(texts) if succeeds else 0
        script = f'echo "$*" >> calls\nn=$(wc -l < calls)\ncat $n\n[ $n = {last} ]\n'
        for name, text in (("cdk", f"#!/bin/sh\ncd {tmp_path}\n{script}"), ("node", "#!/bin/sh\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return lambda: (tmp_path / "calls").read_text().splitlines()

    return install


def test_the_cli_is_run_again_for_those_that_it_did_not_come_to(tmp_path, cli):
    calls, reported = cli(FIRST, SECOND), []
    stacks = {name: f"{name}-stack" for name in "ABCD"}
    failures = cdk.deploy_all(tmp_path, stacks, tmp_path, lambda *event: reported.append(event), concurrency=7)
    assert list(failures) == ["B"]
    assert "Repository named B already exists" in failures["B"]
    assert [call.split(" --")[0] for call in calls()] == ["deploy A B C D", "deploy C D"]
    assert "--concurrency 7" in calls()[0]
    assert [stack for stack, _ in reported] == ["B-stack"]


def test_a_stack_that_fails_without_an_event_stops_no_other(tmp_path, cli):
    cli("\x1b[32m✅  A\x1b[39m\n❌  B failed: Error: The stack is in UPDATE_ROLLBACK_FAILED\n", "✅  C\n")
    failures = cdk.deploy_all(tmp_path, {"A": "A", "B": "B", "C": "C"}, tmp_path, lambda *_: None, concurrency=1)
    assert list(failures) == ["B"]
    assert "UPDATE_ROLLBACK_FAILED" in failures["B"]


def test_what_stops_the_cli_itself_is_the_reason_for_all(tmp_path, cli):
    cli("The token has expired\n", succeeds=False)
    failures = cdk.destroy_all(tmp_path, {"A": "A", "B": "B"}, tmp_path, lambda *_: None, concurrency=1)
    assert set(failures) == {"A", "B"}
    assert "The token has expired" in failures["A"]
