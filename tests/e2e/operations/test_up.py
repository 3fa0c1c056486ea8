"""``up``: stopped after every single effect, and begun again, it ends in the right state."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.azure.connection import Allowed
from codecommit_mirror.azure.variables import HeldCredential, Issuing
from codecommit_mirror.checks.judging import Limits, judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.config.mirror import PIPELINE_TAG
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import state
from codecommit_mirror.operations.plan import CONNECT, CREDENTIAL, DEPLOY
from localcloud import sample
from tests.e2e.conftest import NAMESPACES, ROOT, azure_environment
from tests.program import program

from .journeys import DOWN, UP, Killed, state_of, target_of

EVERYTHING = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


def test_up_and_down_do_this_and_no_more(trip):
    assert trip.up() == UP
    trip.assert_up()
    assert trip.up() == []
    assert re.fullmatch(rf"{trip.name} is up: nothing to do, \d+ refs are equal on both sides\.", trip.row.message)
    trip.assert_up()
    files = sample.git(trip.source, "ls-tree", "-r", "main~2")
    assert trip.down() == DOWN
    assert not trip.replica.exists()
    assert trip.down() == []
    assert "azure-pipelines-mirror.yml" not in sample.git(trip.source, "ls-tree", "-r", "main")
    assert "azure-pipelines-mirror.yml" in files


@pytest.mark.parametrize("effect", range(1, len(UP) + 1), ids=lambda n: f"{n} {UP[n - 1]}")
def test_up_that_is_stopped_is_finished_by_the_next(swift, effect):
    with pytest.raises(Killed):
        swift.up(stop_after=effect)
    swift.up()
    swift.assert_up()


def test_a_replica_that_was_deleted_by_hand_gets_a_remedy_that_works(swift):
    swift.up()
    swift.cloud.client("codecommit").delete_repository(repositoryName=swift.name)
    started = time.monotonic()
    with pytest.raises(MirrorError, match=r"was deleted by hand, which CloudFormation does not notice; run") as caught:
        swift.up()
    assert len(str(caught.value).splitlines()) == 1
    assert time.monotonic() - started < 20
    readings = read(swift.context())
    assert (readings.error, readings.replica_is_gone) == (str(caught.value), True)
    swift.down()
    swift.up()
    swift.assert_up()


def test_a_user_that_was_deleted_by_hand_is_made_anew(swift, monkeypatch):
    swift.up()
    iam, user = swift.cloud.client("iam"), swift.mirror.user_name
    (credential,) = swift.credentials
    iam.delete_service_specific_credential(
        UserName=user, ServiceSpecificCredentialId=credential["ServiceSpecificCredentialId"]
    )
    (policy,) = iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]
    iam.detach_user_policy(UserName=user, PolicyArn=policy["PolicyArn"])
    iam.delete_user(UserName=user)
    boundary = iam.create_policy(PolicyName=f"boundary-{swift.name}", PolicyDocument=EVERYTHING)["Policy"]["Arn"]
    monkeypatch.setattr(state, "permissions_boundary", lambda template, partition, account: boundary)
    judged = judge(read(swift.context()), Limits(datetime.now(UTC), timedelta(hours=1)))
    (unknown,) = [check for check in judged.notable if check.name == "pipeline"]
    assert unknown.message.startswith("none is recorded; codecommit-mirror-")
    # The record of the pipeline went with the user, so a person has to say that it gets a new password.
    with pytest.raises(MirrorError, match="is not recorded as this mirror's"):
        swift.up()
    swift.up(allowed=Allowed(replace_pipeline=True))
    swift.assert_up()
    assert iam.list_attached_user_policies(UserName=user)["AttachedPolicies"] == [policy]
    assert iam.get_user(UserName=user)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    assert {"Key": "managed-by", "Value": "codecommit-mirror"} in iam.list_user_tags(UserName=user)["Tags"]
    swift.down()


def test_a_record_that_names_somebody_elses_pipeline_is_refused(swift):
    """Whoever may tag the mirror's user could have it rewritten by 'up', and deleted by 'down'."""
    swift.up()
    azure = swift.context().azure
    (definition,) = azure.definitions_named(swift.mirror.pipeline_name)
    body = {key: value for key, value in definition.body.items() if key not in ("id", "revision", "variables")}
    process = {"type": 2, "yamlFilename": "theirs.yml"}
    theirs = azure.create_definition({**body, "name": f"theirs-{swift.name}", "process": process})
    iam, user = swift.cloud.client("iam"), swift.mirror.user_name
    (tag,) = [tag for tag in iam.list_user_tags(UserName=user)["Tags"] if tag["Key"] == PIPELINE_TAG]
    forged = f"{tag['Value'].partition('/')[0]}/{theirs.id}"
    iam.tag_user(UserName=user, Tags=[{"Key": PIPELINE_TAG, "Value": forged}])
    for command in (swift.up, swift.down):
        with pytest.raises(MirrorError, match=f"'theirs-{swift.name}', which runs 'theirs.yml' and has neither"):
            command()
    assert azure.definition(theirs.id).body == theirs.body
    iam.tag_user(UserName=user, Tags=[tag])
    azure.delete_definition(theirs)
    swift.down()


def test_an_existing_repository_becomes_the_replica_and_stays(trip):
    codecommit = trip.cloud.client("codecommit")
    trip.config.write_text(trip.config.read_text() + "    existing: true\n")
    (trip.mirror,) = load_mirrors(trip.config, trip.name)
    with pytest.raises(MirrorError, match=r"create it with 'aws codecommit create-repository --repository-name"):
        trip.up()
    codecommit.create_repository(repositoryName=trip.name)
    trip.up()
    trip.assert_up()
    arn = codecommit.get_repository(repositoryName=trip.name)["repositoryMetadata"]["Arn"]
    assert codecommit.list_tags_for_resource(resourceArn=arn)["tags"] == trip.mirror.replica_tags
    existing, trip.mirror = trip.mirror, trip.mirror.model_copy(update={"existing": False})
    with pytest.raises(MirrorError, match="set existing: true, since the stack only refers to it"):
        trip.down()
    trip.mirror = existing
    trip.down()
    assert "the replica and its history stay" in trip.said
    assert codecommit.list_tags_for_resource(resourceArn=arn)["tags"] == {}
    assert program.by_original_name(sample.refs(trip.replica), NAMESPACES)


def test_a_history_that_is_not_the_sources_is_not_replaced(trip):
    trip.cloud.client("codecommit").create_repository(repositoryName=trip.name)
    tree = sample.git(trip.replica, "mktree", stdin=b"").strip()
    before = sample.git(trip.replica, "commit-tree", tree, "-m", "somebody's work").strip()
    sample.git(trip.replica, "update-ref", "refs/heads/main", before)
    trip.config.write_text(trip.config.read_text() + "    existing: true\n")
    (trip.mirror,) = load_mirrors(trip.config, trip.name)
    trip.up(waits=False)
    assert "is connected to a repository that was there before" in trip.row.message
    with pytest.raises(MirrorError, match="correct what its log above reports"):
        trip.up()
    assert "run once with 'codecommit-mirror pipeline run NAME --replace-history " in trip.said
    assert sample.refs(trip.replica, *NAMESPACES) == {"refs/heads/main": before}


def test_git_lfs_is_said_by_up_and_by_status(swift, command):
    attributes = sample.git(swift.source, "hash-object", "-w", "--stdin", stdin=b"*.psd filter=lfs -text\n").strip()
    tree = sample.git(swift.source, "mktree", stdin=f"100644 blob {attributes}\t.gitattributes\n".encode()).strip()
    commit = sample.git(swift.source, "commit-tree", tree, "-p", "main", "-m", "Git LFS").strip()
    sample.git(swift.source, "update-ref", "refs/heads/main", commit)
    swift.up()
    assert "the source uses Git LFS: its large files are not in the replica, only the pointers to them" in swift.said
    (build,) = swift.context().azure.builds(state_of(swift.context()).definition)
    (summary,) = swift.cloud.azure.run_log(build.id)["summaries"]
    assert "The source uses Git LFS: its large files are not in the replica" in summary
    shown = command("status", "--config", str(swift.config), **azure_environment(swift.cloud))
    assert f"{swift.name}: warning: LFS: the source uses Git LFS" in shown.stdout
    assert shown.returncode == 3


def test_a_new_user_name_waits_until_the_old_user_has_no_credentials(bootstrapped, quick):
    quick.mirror = quick.mirror.model_copy(update={"user_name": "another"})
    with pytest.raises(MirrorError, match=f"credentials revoke {quick.name} --all"):
        quick.up()
    assert quick.effects.seen == []
    quick.cloud.client("iam").delete_service_specific_credential(
        UserName=f"azure-devops-pipeline-{quick.name}",
        ServiceSpecificCredentialId=target_of(quick.context()).held().id,
    )
    assert quick.up(stages=(DEPLOY,)) == ["cdk deploy"]


def test_a_stack_of_that_name_that_is_something_elses_is_not_touched(swift):
    cloudformation = swift.cloud.client("cloudformation")
    body = '{"Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}}}'
    cloudformation.create_stack(StackName=swift.name, TemplateBody=body)
    for what in (swift.up, swift.down):
        with pytest.raises(MirrorError, match=r"does not belong to the mirror .* and is left alone"):
            what()
    assert swift.effects.seen == []
    assert "AWS::Logs::LogGroup" in str(cloudformation.get_template(StackName=swift.name)["TemplateBody"])


def test_what_a_person_issued_since_is_not_taken_for_a_stray(quick):
    (held,) = [c["ServiceSpecificCredentialId"] for c in quick.credentials]
    before = Issuing(datetime.now(UTC) - timedelta(hours=2), frozenset({held}))
    note = HeldCredential(held, before)
    target_of(quick.context()).record(note)
    theirs = quick.issue_by_hand()
    quick.up(stages=(CONNECT, CREDENTIAL))
    assert {c["ServiceSpecificCredentialId"] for c in quick.credentials} == {held, theirs}


def test_ctrl_c_says_what_to_do(quick):
    quick.cloud.azure.set_agent_online(False)
    try:
        where = ("--azure-repo-url", quick.mirror.azure.clone_url)
        process = subprocess.Popen(
            [sys.executable, "-m", "codecommit_mirror", "pipeline", "run", quick.name, *where],
            cwd=ROOT,
            env={**os.environ, **azure_environment(quick.cloud), "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background of a shell ignores it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        quick.cloud.azure.set_agent_online(True)
    assert process.wait() == 130
    assert said.strip().endswith("stopped; running it again is safe, and resumes from there.")


def test_a_run_that_succeeded_in_part_says_which_refs_and_why(swift):
    name = "a" * 40
    sample.git(swift.source, "update-ref", f"refs/heads/{name}", "refs/heads/main")
    swift.up()
    assert "needs attention:" in swift.said
    reason = "CodeCommit does not accept a branch name of 40 hexadecimal digits; rename the branch at the source"
    assert f"- `refs/heads/{name}`: {reason}" in swift.said


def test_a_repository_that_is_nearly_named_is_suggested(swift):
    azure = swift.mirror.azure.model_copy(update={"repository": swift.name.replace("journey", "jorney")})
    swift.mirror = swift.mirror.model_copy(update={"azure": azure})
    with pytest.raises(MirrorError, match=f"did you mean '{swift.name}'"):
        swift.up()
