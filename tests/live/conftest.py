"""The report of the live tests: what became of each line of docs/assumptions.md, as Markdown for an issue."""

import os
import re
from pathlib import Path

import pytest

ASSUMPTIONS = Path(__file__).parents[2] / "docs" / "assumptions.md"
RESULTS = pytest.StashKey[dict[str, list[str]]]()
OBSERVED = pytest.StashKey[list[str]]()


def read_assumptions(text):
    """Return the assumptions, by their ids: the first two columns of each row of a table."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \|", text, re.MULTILINE)
    return dict(rows)


def verdict(outcomes):
    """Return what the outcomes of an assumption's tests say of it."""
    if "failed" in outcomes:
        return "did not hold"
    return "held" if outcomes and set(outcomes) == {"passed"} else "not tried"


def render_report(assumptions, results, observed):
    """Return the report.

    Args:
        assumptions: their texts, by id.
        results: outcomes of the tests that try them, by id.
        observed: lines of what was seen of the services.
    """
    rows = [f"| `{name}` | {text} | {verdict(results.get(name, []))} |" for name, text in assumptions.items()]
    table = ["| | Assumption | Result |", "|---|---|---|", *rows]
    seen = ["", "What the services showed:", "", *(f"- {line}" for line in observed)] if observed else []
    return "\n".join(["## Assumptions about the real services", "", *table, *seen, ""])


def pytest_configure(config):
    config.addinivalue_line("markers", "tries(*ids): the assumptions that a test holds against the services")
    config.stash[RESULTS], config.stash[OBSERVED] = {}, []


@pytest.fixture
def observe(request):
    """Write down what a service showed."""
    return request.config.stash[OBSERVED].append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    results = item.config.stash[RESULTS]
    if report.when == "call" or report.outcome != "passed":
        for mark in item.iter_markers("tries"):
            for name in mark.args:
                # A mirror that did not come up says nothing of what it was to be tried for.
                outcome = report.outcome if report.when == "call" else "skipped"
                results.setdefault(name, []).append(outcome)
    return report


def pytest_terminal_summary(terminalreporter, config):
    if not config.stash[RESULTS]:
        return
    assumptions = read_assumptions(ASSUMPTIONS.read_text(encoding="utf-8"))
    report = render_report(assumptions, config.stash[RESULTS], config.stash[OBSERVED])
    terminalreporter.write_line(f"\n{report}")
    if path := os.environ.get("MIRROR_LIVE_REPORT"):
        Path(path).write_text(report, encoding="utf-8")
