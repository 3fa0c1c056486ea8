"""What names versions by tags says the same on a clone of the replica as on one of the source."""

import json
import re
import subprocess

import dunamai
import pytest
import setuptools_scm

from codecommit_mirror.engine.refs import ARCHIVE_PREFIX, CONFIRMED_TAG
from localcloud import sample

from .conftest import ROOT

OURS = "codecommit-mirror/*"


@pytest.fixture
def clones(rig, tmp_path):
    """Clone both sides, after a run or on call, at a branch."""

    def clone(branch="main"):
        rig.run()
        folders = []
        for side, path in (("source", rig.source), ("replica", rig.replica)):
            folder = tmp_path / f"{side}-{len(list(tmp_path.iterdir()))}"
            subprocess.run(["git", "clone", "-q", "-b", branch, str(path), str(folder)], check=True)
            folders.append(folder)
        return folders

    return clone


def described(folder, *options):
    """Return what each tool says of a clone: at its branch and, for git, at every commit of its history."""
    commits = sample.git(folder, "rev-list", "HEAD").split()

    def each(*command):
        done = (["git", "-C", str(folder), *command, commit] for commit in commits)
        return [subprocess.run(one, capture_output=True, text=True, check=False).stdout for one in done]

    return {
        "describe": each("describe", "--tags", "--always", *options),
        "exact": each("describe", "--tags", "--exact-match", *options),
        "contains": each("describe", "--contains", "--always"),
        "points": each("tag", "--points-at"),
        "setuptools_scm": setuptools_scm.get_version(folder, version_scheme="guess-next-dev"),
        "dunamai": str(dunamai.Version.from_git(path=folder)),
    }


def test_clones_of_both_sides_have_the_same_versions(rig, clones):
    sample.fill(rig.source, commits=12, branches=2, tags=2)
    first, second = clones()
    assert described(first) == described(second)
    # A branch is merged and deleted, another one rewritten, a third one deleted.
    side = sample.commit(rig.source, "feature/0", "on a branch")
    tree = sample.git(rig.source, "rev-parse", "feature/0^{tree}").strip()
    merge = sample.git(rig.source, "commit-tree", tree, "-p", "main", "-p", side, "-m", "merge").strip()
    sample.git(rig.source, "update-ref", "refs/heads/main", merge)
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.commit(rig.source, "feature/1", "rewritten", parent="main~3")
    sample.commit(rig.source, "main", "after the merge")
    first, second = clones()
    names = set(sample.refs(second, "refs/tags/"))
    assert CONFIRMED_TAG in names
    assert any(name.startswith(ARCHIVE_PREFIX) for name in names)
    assert described(first) == described(second)


def test_a_dropped_tag_is_the_exception_which_one_option_leaves_out(rig, clones):
    sample.fill(rig.source, commits=12, branches=2, tags=2)
    sample.git(rig.source, "tag", "-a", "-m", "x", "v9.9", "main")
    rig.run()
    sample.git(rig.source, "tag", "-d", "v9.9")
    describe = ["git", "describe", "--tags", "--long", "--match", "*[0-9]*"]
    first, second = clones()
    versions = [
        setuptools_scm.get_version(folder, git_describe_command=[*describe, *options])
        for folder, options in ((first, []), (second, []), (second, ["--exclude", OURS]))
    ]
    assert versions[1].startswith("9.9")
    assert versions[2] == versions[0]
    expected = sample.git(first, "describe", "--tags")
    assert sample.git(second, "describe", "--tags", "--exclude", OURS) == expected
    assert "v9.9" in sample.git(second, "describe", "--tags")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("v1.0", "tag", True),
        ("codecommit-mirror/confirmed", "tag", False),
        ("codecommit-mirror/archive/20261101T000000Z/tags/v9.9", "tag", False),
        ("main", "branch", False),
    ],
)
def test_the_documented_pattern_of_tag_events_leaves_ours_out(cloud, name, kind, expected):
    text = (ROOT / "docs" / "architecture.md").read_text()
    pattern = re.search(r"```json\n(.*?)```", text, re.DOTALL)[1]
    event = {
        **{"id": "1", "account": cloud.account, "source": "aws.codecommit", "time": "2026-11-29T00:00:00Z"},
        **{"region": cloud.region, "resources": [], "detail-type": "CodeCommit Repository State Change"},
        "detail": {"referenceType": kind, "referenceName": name},
    }
    found = cloud.client("events").test_event_pattern(EventPattern=pattern, Event=json.dumps(event))
    assert found["Result"] is expected
