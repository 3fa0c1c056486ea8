"""The rendered pipeline on the embedded agent: source and replica are equal afterwards, or the run says why not."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from codecommit_mirror.azure import pipeline
from localcloud import sample
from localcloud.azure.agent.execution import run_pipeline
from localcloud.azure.agent.run import Variable
from tests.e2e.conftest import with_another_engine
from tests.e2e.engine.sides import kept_by
from tests.program import program


def test_everything_is_mirrored_and_pull_requests_are_not(rig):
    sample.fill(rig.source, pull_requests=300)
    run = rig.run()
    assert run.result == "succeeded", run.text
    rig.assert_equal()
    assert len(sample.refs(rig.source, "refs/pull/")) == 300
    assert "Mirror Succeeded" in run.summaries[0]


def test_a_day_of_changes(rig):
    sample.fill(rig.source)
    rig.run()
    tip = sample.commit(rig.source, "main", "new commit")
    sample.git(rig.source, "update-ref", "refs/heads/new-branch", tip)
    sample.git(rig.source, "tag", "-a", "-m", "a tag", "new-tag", tip)
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    sample.git(rig.source, "update-ref", "-d", "refs/tags/light-1")
    sample.commit(rig.source, "feature/1", "rewritten", parent="refs/heads/main~5")
    run = rig.run()
    assert run.result == "succeeded", run.text
    rig.assert_equal()
    assert "2 created, 2 updated, 2 deleted" in run.text


def test_no_git_is_needed_on_the_agent(rig, tmp_path):
    sample.fill(rig.source, extra_branches=sample.HOSTILE_BRANCHES)
    without_git = tmp_path / "bin"
    without_git.mkdir()
    for tool in ("bash", "cat"):
        (without_git / tool).symlink_to(shutil.which(tool))
    python = without_git / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert rig.run(path=str(without_git)).result == "succeeded"
    sample.commit(rig.source, "main", "another")
    sample.commit(rig.source, "feature/1", "rewritten", parent="main~9")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/2")
    run = rig.run(path=str(without_git))
    assert run.result == "succeeded", run.text
    rig.assert_equal()
    again = rig.run(path=str(without_git))
    assert "0 created, 0 updated, 0 deleted, 0 archived" in again.text


def test_the_job_token_reads_the_source(rig):
    sample.fill(rig.source)
    del rig.variables["AZURE_GIT_USERNAME"], rig.variables["AZURE_GIT_PASSWORD"]
    run = rig.run(mirror=rig.mirror.model_copy(update={"source_auth": "job-token"}))
    assert run.result == "succeeded", run.text
    rig.assert_equal()


def test_hostile_names_are_names(rig):
    sample.fill(rig.source, extra_branches=sample.HOSTILE_BRANCHES)
    run = rig.run()
    assert run.result == "succeeded", run.text
    rig.assert_equal()
    for name in sample.HOSTILE_BRANCHES:
        sample.git(rig.source, "update-ref", "-d", f"refs/heads/{name}")
    run = rig.run(parameters={"allowDeletions": "true"})
    assert run.result == "succeeded", run.text
    rig.assert_equal()


def test_five_thousand_refs(rig):
    sample.fill(rig.source)
    tip = sample.git(rig.source, "rev-parse", "main").strip()
    updates = "".join(f"create refs/tags/many/{n} {tip}\n" for n in range(2500))
    updates += "".join(f"create refs/heads/many/{n} {tip}\n" for n in range(2500))
    sample.git(rig.source, "update-ref", "--stdin", stdin=updates.encode())
    run = rig.run()
    assert run.result == "succeeded", run.text
    rig.assert_equal()
    assert "of 5" in run.text
    sample.git(rig.source, "update-ref", "--stdin", stdin=updates.replace("create", "delete").encode())
    # A variable of the pipeline would be a standing override, and is none.
    rig.variables["MIRROR_ALLOW_DELETIONS"] = Variable("1")
    assert "--allow-deletions" in rig.run().text
    assert rig.run(parameters={"allowDeletions": "true"}).result == "succeeded"
    rig.assert_equal()


def test_a_plain_mirror_push_of_five_thousand_refs_is_refused(rig):
    """What the limit is for: the embedded CodeCommit refuses what the real one does."""
    sample.fill(rig.source)
    tip = sample.git(rig.source, "rev-parse", "main").strip()
    updates = "".join(f"create refs/tags/many/{n} {tip}\n" for n in range(5000))
    sample.git(rig.source, "update-ref", "--stdin", stdin=updates.encode())
    pushed = push(rig, "--tags")
    assert pushed.returncode != 0
    assert "Too many reference update commands" in pushed.stderr


def test_annotated_nested_tree_and_blob_tags(rig):
    sample.fill(rig.source)
    sample.git(rig.source, "tag", "-a", "-m", "tag of a tag", "nested", "v0.0")
    sample.git(rig.source, "tag", "tree", "main^{tree}")
    sample.git(rig.source, "tag", "blob", "feature/0:branch.txt")
    assert rig.run().result == "succeeded"
    rig.assert_equal()


def test_a_branch_becomes_a_folder_and_back(rig):
    sample.fill(rig.source)
    tip = sample.git(rig.source, "rev-parse", "main").strip()
    for before, after in [("topic", "topic/a"), ("topic/a", "topic")]:
        sample.git(rig.source, "update-ref", f"refs/heads/{before}", tip)
        assert rig.run().result == "succeeded"
        sample.git(rig.source, "update-ref", "-d", f"refs/heads/{before}")
        sample.git(rig.source, "update-ref", f"refs/heads/{after}", tip)
        run = rig.run()
        assert run.result == "succeeded", run.text
        rig.assert_equal()


def test_the_sources_default_branch_becomes_the_replicas(rig):
    sample.fill(rig.source)
    sample.git(rig.source, "symbolic-ref", "HEAD", "refs/heads/feature/3")
    rig.run()
    metadata = rig.cloud.client("codecommit").get_repository(repositoryName=rig.name)["repositoryMetadata"]
    assert metadata["defaultBranch"] == "feature/3"


def test_a_deleted_default_branch_needs_attention_and_the_rest_is_mirrored(rig):
    sample.fill(rig.source)
    rig.run()
    sample.git(rig.source, "branch", "-m", "main", "trunk")
    sample.git(rig.source, "update-ref", "-d", "refs/heads/feature/0")
    for _ in range(2):
        run = rig.run()
        assert run.result == "succeededWithIssues", run.text
        (issue,) = run.issues
        assert issue[0] == "warning"
        assert "aws codecommit update-default-branch" in issue[1]
        branches = sample.refs(rig.replica, "refs/heads/").keys() - sample.refs(rig.source).keys()
        assert branches == {"refs/heads/main"}
    kept = [kept_by(rig.replica, entry) for entry in sample.refs(rig.replica, program.ARCHIVE_PREFIX).values()]
    assert [set(tips) for tips in kept] == [{"refs/heads/feature/0", "refs/heads/main"}, {"refs/heads/main"}]
    rig.cloud.client("codecommit").update_default_branch(repositoryName=rig.name, defaultBranchName="trunk")
    assert rig.run().result == "succeeded"
    rig.assert_equal()


def test_a_default_branch_that_becomes_a_folder_says_what_it_waits_for(rig):
    sample.fill(rig.source)
    rig.run()
    sample.git(rig.source, "branch", "-m", "main", "moved")
    sample.git(rig.source, "branch", "-m", "moved", "main/a")
    run = rig.run()
    assert run.result == "succeededWithIssues", run.text
    assert "refs/heads/main/a: is blocked by a branch that could not be deleted" in run.issues[1][1]


def test_an_empty_source_never_empties_the_replica(rig):
    run = rig.run()
    assert run.result == "succeeded", run.text
    sample.fill(rig.source)
    rig.run()
    before = sample.refs(rig.replica)
    for ref in sample.refs(rig.source):
        sample.git(rig.source, "update-ref", "-d", ref)
    run = rig.run()
    assert run.result == "failed"
    assert "the source has no branches and tags; this run would delete" in run.text
    assert sample.refs(rig.replica) == before


def test_a_branch_name_that_codecommit_refuses_does_not_stop_the_rest(rig):
    sample.fill(rig.source)
    sample.git(rig.source, "update-ref", f"refs/heads/{'a' * 40}", "main")
    run = rig.run()
    assert run.result == "succeededWithIssues", run.text
    assert "40 hexadecimal digits" in run.issues[0][1]
    assert sample.refs(rig.source).keys() - sample.refs(rig.replica).keys() >= {f"refs/heads/{'a' * 40}"}


def test_refs_that_are_not_there_to_mirror_are_no_success(rig):
    sample.fill(rig.source)
    run = rig.run(mirror=rig.mirror.model_copy(update={"refs": ("head",)}))
    assert run.result == "failed"
    assert "none of the source's 36 refs is below refs/head/" in run.text


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (
            "AZURE_GIT_PASSWORD",
            "a sign-in page); check the pipeline's variables AZURE_GIT_USERNAME and",
        ),
        ("AWS_GIT_PASSWORD", "(403); check the pipeline's variables AWS_GIT_USERNAME and"),
    ],
)
def test_a_wrong_password_says_what_to_check(rig, variable, words):
    sample.fill(rig.source)
    run = rig.run(**{variable: "wrong-password-canary"})
    assert run.result == "failed"
    assert words in run.issues[0][1]
    assert "Traceback" not in run.text
    assert "wrong-password-canary" not in "\n".join(run.unmasked)


def test_a_variable_that_was_not_set_is_named(rig):
    sample.fill(rig.source)
    del rig.variables["AWS_GIT_USERNAME"]
    run = rig.run()
    assert run.result == "failed"
    assert run.issues == [
        ("error", "the pipeline variable AWS_GIT_USERNAME is not set; add it under Edit, Variables of the pipeline.")
    ]


def test_a_deactivated_credential_is_refused_at_once(rig):
    sample.fill(rig.source)
    rig.cloud.client("iam").update_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"], Status="Inactive"
    )
    assert rig.run().result == "failed"
    assert sample.refs(rig.replica) == {}


def test_the_user_may_push_and_may_not_fetch(rig):
    sample.fill(rig.source)
    assert rig.run().result == "succeeded"
    listed = plain_git(rig, "ls-remote", rig.outputs["ReplicaUrl"])
    assert listed.returncode != 0
    assert "403" in listed.stderr


def test_a_source_that_does_not_exist_is_named(rig):
    rig.cloud.azure.rename_repository("contoso", "Shop", rig.name, f"{rig.name}-renamed")
    run = rig.run()
    rig.cloud.azure.rename_repository("contoso", "Shop", f"{rig.name}-renamed", rig.name)
    assert run.result == "failed"
    assert "is not there for this user (404) (TF401019: The Git repository with name" in run.text


@pytest.mark.parametrize("variable", ["AZURE_REPO_URL", "AWS_REPO_URL"])
def test_a_variable_that_differs_from_the_yaml_stops_the_run_before_anything_is_sent(rig, variable):
    sample.fill(rig.source)
    before = rig.cloud.azure_url, rig.outputs["ReplicaUrl"]
    elsewhere = f"{before[0]}/contoso/Shop/_git/other" if variable == "AZURE_REPO_URL" else f"{before[1]}-other"
    run = rig.run(**{variable: elsewhere})
    assert run.result == "failed"
    assert "nothing was changed: " in run.text
    assert "but this pipeline's YAML is for" in run.text
    assert sample.refs(rig.replica) == {}


def push(rig, *arguments):
    return plain_git(rig, "-C", str(rig.source), "push", *arguments, rig.outputs["ReplicaUrl"])


def plain_git(rig, *arguments):
    """Run git with the mirror's own credentials, as the blog post's pipeline would."""
    variables = {name: variable.value for name, variable in rig.variables.items()}
    replica = program.read_settings(variables).replica
    environment = program.git_environment({"PATH": os.environ["PATH"]}, replica)
    return subprocess.run(["git", *arguments], env=environment, capture_output=True, text=True, check=False)


def test_nothing_is_left_on_the_agent(rig):
    sample.fill(rig.source)
    run = rig.run()
    assert (run.result, run.left_behind) == ("succeeded", [])


def test_a_program_that_breaks_is_an_error_in_the_run(rig, monkeypatch):
    broken = 'if __name__ == "__main__":\n    mirror = None\n    sys.exit(main())'
    text = pipeline.render(rig.mirror)
    indented = broken.replace("\n", "\n          ")
    text = with_another_engine(text, 'if __name__ == "__main__":\n              sys.exit(main())', indented)
    run = run_pipeline(text, rig.variables, job_token=rig.cloud.job_token)
    assert run.result == "failed"
    assert run.issues == [("error", "the mirror engine crashed (TypeError); see the log")]


def test_a_canceled_run_leaves_nothing_behind_and_can_be_started_again(rig):
    sample.fill(rig.source)
    text = pipeline.render(rig.mirror).replace("timeoutInMinutes: 120", "timeoutInMinutes: 0.002")
    assert run_pipeline(text, rig.variables, job_token=rig.cloud.job_token).result == "canceled"
    assert rig.run().result == "succeeded"
    rig.assert_equal()


def test_sync_and_verify_are_the_same_engine(rig, command, tmp_path):
    sample.fill(rig.source)
    environment = {name: variable.value for name, variable in rig.variables.items() if "_GIT_" in name}
    arguments = (rig.name, "--azure-repo-url", rig.mirror.azure.clone_url)
    different = command("verify", *arguments, **environment)
    assert different.returncode == 3
    assert "refs/heads/main" in different.stdout
    assert "16 refs differ, out of 16." in different.stdout

    preview = command("sync", *arguments, "--dry-run", **environment)
    assert "+ ref refs/heads/main: " in preview.stdout
    assert preview.stdout.endswith("16 to create; at most 0 tips archived.\n")
    assert not sample.refs(rig.replica)
    synced = command("sync", *arguments, "--json", **environment)
    assert synced.returncode == 0, synced.stderr
    report = json.loads(synced.stdout)
    assert (report["result"], report["created"], report["broken"]) == ("Succeeded", 16, {})
    rig.assert_equal()

    equal = command("verify", *arguments, "--json", **environment)
    assert (equal.returncode, json.loads(equal.stdout)) == (
        0,
        {"format": 1, "equal": True, "refs": 16, "carried": 1, "different": {}},
    )
    assert command("sync", *arguments, "--dry-run", **environment).stdout == "Nothing would change.\n"
    again = command("sync", *arguments, **environment)
    assert "0 created, 0 updated, 0 deleted" in again.stdout

    csv = tmp_path / "c.csv"
    csv.write_text(f"User Name,Password\n{environment['AWS_GIT_USERNAME']},{environment['AWS_GIT_PASSWORD']}\n")
    source = {name: value for name, value in environment.items() if name.startswith("AZURE_")}
    assert command("verify", *arguments, "--credentials", str(csv), **source).returncode == 0
    missing = command("sync", *arguments, **source)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: AWS_GIT_USERNAME is not set; export it")
    without = command("verify", *arguments, **source)
    assert without.returncode == 1
    assert without.stderr.startswith("error: there is no Azure DevOps token; set AZURE_DEVOPS_EXT_PAT")
    own = command("verify", *arguments, AZURE_DEVOPS_EXT_PAT=rig.cloud.personal_access_token)
    assert own.stdout == f"16 refs are equal.\n{program.carried_note(1)}\n"
    for name in ("sync", "verify"):
        wrong = command(name, *arguments, **{**environment, "AWS_GIT_PASSWORD": "wrong-canary"})
        assert wrong.returncode == 1
        assert "refused access (403)" in wrong.stderr
        assert "wrong-canary" not in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("after_bytes", [None, 1000])
def test_a_run_outlives_throttling_and_connections_that_end(rig, after_bytes):
    sample.fill(rig.source)
    rig.cloud.break_pushes(2, after_bytes)
    run = rig.run()
    assert run.result == "succeeded", run.text
    assert run.text.count("Trying again") == 2
    rig.assert_equal()
