"""The documentation's own commands, run on the embedded cloud; its links lead somewhere."""

import re
from pathlib import Path

import pytest

from .conftest import ROOT

README, GETTING_STARTED = ROOT / "README.md", ROOT / "docs" / "getting-started.md"
DEMOS = {"make demo", "make demo KEEP=1"}
"""The tests of the demo run these."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "console") for line in block.splitlines()]


def test_the_readme_has_no_command_that_getting_started_does_not_run():
    known = {line.removesuffix(" --yes") for line in commands(GETTING_STARTED)} | DEMOS
    assert set(commands(README)) <= known


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 8_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs or f'id="{anchor}"' in linked.read_text(), target


def test_the_tests_that_security_names_are_there():
    named = set(re.findall(r"\btest_\w+\.py", (ROOT / "docs" / "security.md").read_text()))
    assert len(named) > 8
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
