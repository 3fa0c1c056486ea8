"""The page and the summary of a fleet's status; the page is looked at in a real browser."""

import html
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from codecommit_mirror.checks.status_page import COLUMNS, Cell, Line, page, summary

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOSTILE = "<script>document.title='canary'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def line(name, kind, lag=0):
    why, ended = HOSTILE if kind == "failed" else "", "succeeded 2026-11-26 11:00 UTC"
    texts = (name, kind, why, ended, "16 equal", f"{lag} h", "role")
    link = "https://dev.azure.com/contoso/Shop/_build?a=1&b=2"
    return Line(kind, tuple(Cell(text, str(lag) if text == f"{lag} h" else text, link) for text in texts))


LINES = [line("b-one", "ok", 9), line("a-two", "failed", 10), line("c-three", "warning", 2)]

ACTIONS = """
const rows = () => [...body.rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent).join(" ");
const result = { first: rows(), title: document.title };
const press = (column) => headers[column].firstChild.click();
press(0); result.byName = rows();
press(0); result.byNameDown = rows();
press(5); result.byLag = rows();
filter.value = "THREE"; filter.dispatchEvent(new Event("input")); result.filtered = rows();
filter.value = ""; filter.dispatchEvent(new Event("input"));
failing.checked = true; failing.dispatchEvent(new Event("change")); result.failing = rows();
result.shown = document.getElementById("shown").textContent;
result.cell = getComputedStyle(body.rows[0].cells[0]).display;
result.fits = document.documentElement.scrollWidth <= window.innerWidth;
document.body.setAttribute("data-result", JSON.stringify(result));
"""


def seen(tmp_path, width):
    """Return what a browser of a width shows, and does at clicks."""
    file = tmp_path / "status.html"
    file.write_text(page(LINES, NOW).replace("</body>", f"<script>{ACTIONS}</script></body>"))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search('data-result="([^"]*)"', done.stdout)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium ('make tools' installs Debian's, as root)")
@pytest.mark.parametrize(("width", "display"), [(1200, "table-cell"), (500, "flex")])
def test_a_browser_sorts_filters_and_fits_a_phone(tmp_path, width, display):
    result = seen(tmp_path, width)
    assert result["title"] == "Mirrors: 2 of 3 need attention"
    assert result["first"] == "a-two c-three b-one"
    assert result["byName"] == "a-two b-one c-three"
    assert result["byNameDown"] == "c-three b-one a-two"
    assert result["byLag"] == "c-three b-one a-two"
    assert result["filtered"] == "c-three"
    assert result["failing"] == "c-three a-two"
    assert result["shown"] == "2 of 3 shown"
    assert result["cell"] == display
    assert result["fits"]


def test_it_needs_nothing_from_elsewhere_and_obeys_no_name():
    text = page(LINES, NOW)
    assert not re.search(r"""src=|@import|url\(""", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"https://dev.azure.com/contoso/Shop/_build?a=1&amp;b=2"}
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=True).replace("&#x27;", "&#39;") in text
    assert "default-src 'none'" in text
    assert all(f'data-label="{column}"' in text for column in COLUMNS)


def test_the_summary_lists_what_is_not_healthy():
    text = summary(LINES)
    assert "1 ok, 1 with warnings, 1 failed, of 3." in text
    assert text.index("a-two") < text.index("c-three")
    assert "b-one" not in text
    assert "<script>" not in text
    assert len(summary([line(f"m{number}", "failed") for number in range(500)]).splitlines()) < 120
