"""A release: what it says of itself, and that two builds of one commit are the same."""

import subprocess

import pytest

from release.__main__ import build_twice
from release.changelog import released, section

TEXT = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- a thing\n"


def test_what_is_unreleased_becomes_the_versions_section_once():
    text = released(TEXT, "1.0.0", "2026-11-30")
    assert text == "# Changelog\n\n## [Unreleased]\n\n## [1.0.0] - 2026-11-30\n\n### Added\n\n- a thing\n"
    assert released(text, "1.0.0", "2026-12-01") == text
    assert section(text, "1.0.0") == "### Added\n\n- a thing"
    assert section(text, "1.0.1") == ""


@pytest.mark.parametrize("text", ["# Changelog\n", "## [Unreleased]\n", "## [Unreleased]\n\n## [1.0.0] - 2026-11-30\n"])
def test_a_version_that_changes_nothing_is_refused(text):
    with pytest.raises(ValueError, match="has nothing under 'Unreleased'"):
        released(text, "2.0.0", "2026-11-30")


def test_two_builds_of_a_commit_are_the_same_byte_for_byte(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "thing"\nversion = "1"\nrequires-python = ">=3.11"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["thing"]\n'
    )
    (source / "thing").mkdir()
    (source / "thing" / "__init__.py").write_text("")
    git = ["git", "-C", str(source), "-c", "user.name=A", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "A thing"]):
        subprocess.run([*git, *command], check=True)
    built = list(build_twice(source, "HEAD", tmp_path / "dist"))
    assert [path.name for path in built] == ["thing-1-py3-none-any.whl", "thing-1.tar.gz"]
