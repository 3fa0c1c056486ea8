"""docs/formats.md is what the software writes, and what it reads: each format by its number."""

import json
import re
from pathlib import Path

import pytest

from codecommit_mirror.cli.output import JSON_FORMAT, print_json
from codecommit_mirror.config.load import load
from codecommit_mirror.engine.archive import archive_commits
from codecommit_mirror.engine.confirmation import confirmation
from codecommit_mirror.engine.settings import Settings, make_endpoint
from codecommit_mirror.engine.wire.packs import COMMIT, object_id
from codecommit_mirror.errors import ConfigurationError
from codecommit_mirror.guard.replica import history
from codecommit_mirror.guard.replica.confirmation import parse_confirmation

DOCUMENT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
TIPS = [("a" * 40, "refs/heads/gone"), ("b" * 40, "refs/heads/moved")]


def example(title):
    """The block of text below a heading of the document."""
    return re.search(rf"^## {title}\n.*?```text\n(.*?)```", DOCUMENT, re.DOTALL | re.MULTILINE)[1]


def test_the_confirming_tag_is_as_documented():
    source, replica = (
        make_endpoint(side, url, "", "", "")
        for side, url in (
            ("source", "https://dev.azure.com/contoso/Shop/_git/Orders"),
            ("replica", "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/Orders"),
        )
    )
    settings = Settings(source, replica, source_id="5a9d8f3e-0000-4000-8000-000000000001")
    written = confirmation(settings, {"refs/heads/main": "a" * 40}, 1_793_404_800).decode()
    assert example("The confirming tag") == written
    assert parse_confirmation(written.encode()).source == source.url
    assert parse_confirmation(written.replace("format: 1\n", "format: 2\n").encode()) is None


def test_an_archive_entry_is_as_documented(monkeypatch):
    (entry,) = archive_commits(TIPS)
    message = entry.decode().partition("\n\n")[2]
    assert re.sub("(?m)^earlier .*\n", "", example("An archive entry")) == message
    later = entry.replace(b"format: 1\n", b"format: 2\n")
    commits = {object_id(COMMIT, commit): commit for commit in (entry, later)}
    monkeypatch.setattr(history, "_read_commits", lambda endpoint, capabilities, wanted: commits)
    kept = history.read_entries(None, [], commits)
    assert kept[object_id(COMMIT, entry)] == {ref: tip for tip, ref in TIPS}
    assert kept[object_id(COMMIT, later)] == {}


def test_every_json_begins_with_its_format(capsys):
    print_json({"mirrors": []})
    assert list(json.loads(capsys.readouterr().out).items()) == [("format", JSON_FORMAT), ("mirrors", [])]


def test_a_file_of_another_format_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mirrors.yaml"
    azure = "{organization: contoso, project: Shop, repository: Orders}"
    text = f"# ours\nformat: 1\nmirrors:\n  Orders: {{azure: {azure}}}\n"
    path.write_text(text)
    assert [mirror.name for mirror in load(path).mirrors] == ["Orders"]
    path.write_text(text.replace("format: 1", "format: 2\nnew-section: {}"))
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    assert str(refused.value) == (
        f"{path}, line 2: this version reads format 1, not '2'; install the version of codecommit-mirror that the file "
        "was written for."
    )
