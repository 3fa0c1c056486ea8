"""Which pushes start a pipeline, by its YAML."""

import pytest

from localcloud.azure import triggers

ALL = {"batch": True, "branches": {"include": ["*"]}, "tags": {"include": ["*"]}}


@pytest.mark.parametrize(
    ("trigger", "ref", "starts"),
    [
        (None, "refs/heads/a/b", True),
        (None, "refs/tags/v1", False),
        ("none", "refs/heads/main", False),
        (["main", "release/*"], "refs/heads/release/1/x", True),
        (["main"], "refs/heads/other", False),
        (ALL, "refs/heads/a/b", True),
        (ALL, "refs/tags/v1", True),
        (ALL, "refs/notes/commits", False),
        (ALL, "refs/pull/1/merge", False),
        ({"branches": {"include": ["*"], "exclude": ["wip/*"]}}, "refs/heads/wip/1", False),
        ({"branches": {"include": ["*"]}}, "refs/tags/v1", False),
        ({"tags": {"include": ["v*"]}}, "refs/heads/main", False),
        ({"tags": {"include": ["v*"]}}, "refs/tags/v1", True),
    ],
)
def test_a_push_starts_what_its_trigger_includes(trigger, ref, starts):
    assert triggers.starts(trigger, ref) is starts


@pytest.mark.parametrize(("message", "skips"), [("Fix", False), ("Fix [skip ci]", True), ("***NO_CI***", True)])
def test_a_commit_can_ask_for_no_run(message, skips):
    assert triggers.skips_ci(message) is skips


def test_a_schedule_runs_on_the_branches_it_includes():
    definition = {"schedules": [{"branches": {"include": ["main"]}}, {"branches": {"include": ["release/*"]}}]}
    assert triggers.scheduled_branches(definition, ["main", "other", "release/1"]) == ["main", "release/1"]
    assert triggers.scheduled_branches({}, ["main"]) == []
