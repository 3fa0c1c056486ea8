"""Many mirrors with one command: one that fails stops no other, and running again does only what is left."""

import json

import pytest

from codecommit_mirror.operations import preflight
from localcloud import sample


def by_mirror(result):
    return {one["mirror"]: one for one in json.loads(result.stdout)["mirrors"]}


@pytest.mark.long
def test_a_fleet_is_brought_up_verified_and_taken_down(fleet_of, tmp_path, monkeypatch):
    fleet = fleet_of(4, azure="pipelines_repository: fleet-pipelines")
    sample.fill(
        fleet.cloud.create_azure_repository("contoso", "Shop", "fleet-pipelines"), commits=1, branches=0, tags=0
    )
    first, second, third, _ = fleet.names
    codecommit = fleet.cloud.client("codecommit")
    codecommit.create_repository(repositoryName=first)
    codecommit.create_repository(repositoryName=second)
    mirror_problems = preflight.mirror_problems
    monkeypatch.setattr(
        preflight,
        "mirror_problems",
        lambda state, policy, **more: [] if state.mirror.name == second else mirror_problems(state, policy, **more),
    )

    result = fleet.run("up", "--all", "--yes", "--json", "--summary", str(tmp_path / "summary.md"))
    assert result.exit_code == 1, result.output
    ended = by_mirror(result)
    assert {name: one["result"] for name, one in ended.items() if one["result"] == "failed"} == {
        first: "failed",
        second: "failed",
    }
    assert "belongs to no stack of this mirror" in ended[first]["message"]
    assert f"Repository named {second} already exists" in ended[second]["message"]
    assert ended[third]["message"] == "is up: 6 refs are equal on both sides."
    text = (tmp_path / "summary.md").read_text()
    assert f"failed: {first}, {second}" in text
    assert text.index(f"| {first} | **failed**") < text.index(f"| {third} | succeeded")

    for name in (first, second):
        codecommit.delete_repository(repositoryName=name)
    with monkeypatch.context() as patched:
        patched.setattr(preflight.quotas, "problems", lambda needs, found: ["1 more stack is needed."])
        ended = by_mirror(fleet.run("up", third, first, "--yes", "--json"))
    assert (ended[first]["message"], ended[third]["result"]) == ("1 more stack is needed.", "succeeded")
    again = fleet.run("up", "--all", "--yes", "--json")
    assert again.exit_code == 0, again.output
    assert by_mirror(again)[third]["message"] == "is up: nothing to do, 6 refs are equal on both sides."
    assert by_mirror(again)[first]["message"] == "is up: 6 refs are equal on both sides."

    assert fleet.run("verify", "--all").stdout.startswith("4 of 4 mirrors succeeded.")
    sample.commit(fleet.sources[third], "main", "Not mirrored yet")
    differs = fleet.run("verify", third, first, "--json")
    assert differs.exit_code == 3
    assert by_mirror(differs)[third]["message"] == "1 ref differs: refs/heads/main"

    refused = fleet.run("down", "--all")
    assert refused.exit_code == 1
    assert "Delete all of these (4 mirrors)? Use --yes" in str(refused.exception or refused.output)
    assert len(fleet.replicas()) == 4
    assert fleet.run("down", "--all", "--yes").exit_code == 0
    assert fleet.replicas() == []
    assert fleet.run("down", "--all", "--yes").exit_code == 0
