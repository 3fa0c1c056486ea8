"""``codecommit-mirror credentials`` against the embedded IAM, as a user runs it."""

import csv
import json
import os
import stat
import subprocess
import sys

import pytest

from codecommit_mirror.aws import git_credentials

from .conftest import ROOT

CREDENTIALS_FILE = "azure-devops-pipeline-{}_codecommit_credentials.csv"


@pytest.fixture
def bare(rig):
    """A mirror whose user has no credential yet."""
    iam = rig.cloud.client("iam")
    iam.delete_service_specific_credential(
        UserName=rig.user, ServiceSpecificCredentialId=rig.credential["ServiceSpecificCredentialId"]
    )
    return rig


@pytest.fixture
def run(command, bare):
    def credentials(action, *arguments, **environment):
        options = ["--azure-repo-url", bare.mirror.azure.clone_url]
        return command("credentials", action, bare.name, *arguments, *options, **environment)

    return credentials


def listed(rig):
    iam = rig.cloud.client("iam")
    return iam.list_service_specific_credentials(UserName=rig.user)["ServiceSpecificCredentials"]


def test_issue_writes_the_consoles_csv_for_its_owner_alone(run, bare, tmp_path):
    done = run("issue")
    assert done.returncode == 0, done.stderr
    path = tmp_path / CREDENTIALS_FILE.format(bare.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert list(row) == ["User Name", "Password"]
    assert row["User Name"] == f"{bare.user}-at-111122223333"
    assert row["Password"] not in done.stdout + done.stderr
    assert set("+/=") <= set(row["Password"])
    (credential,) = listed(bare)
    assert credential["ServiceSpecificCredentialId"] in done.stdout


def test_the_issued_credential_mirrors(run, bare, tmp_path):
    run("issue", "--output", "c.csv")
    with (tmp_path / "c.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    done = bare.run(AWS_GIT_USERNAME=row["User Name"], AWS_GIT_PASSWORD=row["Password"])
    assert done.result == "succeeded", done.text


def test_an_existing_file_is_never_overwritten_and_no_credential_is_issued(run, bare, tmp_path):
    path = tmp_path / CREDENTIALS_FILE.format(bare.name)
    path.write_text("mine")
    done = run("issue")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "exists and will not be overwritten" in done.stderr
    assert path.read_text() == "mine"
    assert listed(bare) == []


def test_show_prints_the_password_and_writes_nothing(run, bare, tmp_path):
    done = run("issue", "--show")
    assert done.returncode == 0, done.stderr
    assert "Password:  " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_is_for_scripts(run, bare, tmp_path):
    issued = json.loads(run("issue", "--json", "--output", "c.csv").stdout)
    assert sorted(issued) == ["credential_id", "file", "format", "iam_user", "user_name"]
    shown = json.loads(run("issue", "--json", "--show").stdout)
    assert len(shown["password"]) > 30
    found = json.loads(run("list", "--json").stdout)["credentials"]
    assert {c["credential_id"] for c in found} == {issued["credential_id"], shown["credential_id"]}
    assert {c["status"] for c in found} == {"Active"}
    gone = json.loads(run("revoke", "--all", "--yes", "--json").stdout)
    assert sorted(gone["revoked"]) == sorted(c["credential_id"] for c in found)


def test_the_limit_of_two_is_met_before_the_call(run, bare, tmp_path):
    ids = [json.loads(run("issue", "--json", "--output", f"{n}.csv").stdout)["credential_id"] for n in range(2)]
    done = run("issue", "--output", "third.csv")
    assert done.returncode == 1
    assert all(f"{identifier} (Active, 0 days old)" in done.stderr for identifier in ids)
    assert f"codecommit-mirror credentials revoke {bare.name} {ids[0]}" in done.stderr
    assert not (tmp_path / "third.csv").exists()
    assert len(done.stderr.splitlines()) == 1


def test_list_is_a_table(run, bare):
    assert "has no Git credentials" in run("list").stdout
    run("issue")
    header, row = run("list").stdout.splitlines()
    assert header.split() == ["ID", "STATUS", "CREATED", "AGE"]
    assert row.split()[1] == "Active"
    assert row.endswith("0 days")


def test_revoke_is_idempotent(run, bare):
    identifier = json.loads(run("issue", "--json", "--show").stdout)["credential_id"]
    asked = run("revoke", identifier)
    assert asked.returncode == 1
    assert f"there is no terminal to ask on: It is not known whether the pipeline uses {identifier};" in asked.stderr
    assert f"its runs will fail until you run 'codecommit-mirror up {bare.name}'. Revoke" in asked.stderr
    assert len(listed(bare)) == 1
    assert "Revoked" in run("revoke", identifier, "--yes").stdout
    assert listed(bare) == []
    again = run("revoke", identifier)
    assert again.returncode == 0
    assert "already gone" in again.stdout
    assert run("revoke", "--all").returncode == 0


def test_revoke_when_the_stack_is_gone_is_success(run, bare):
    cloudformation = bare.cloud.client("cloudformation")
    cloudformation.delete_stack(StackName=bare.name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=bare.name, WaiterConfig={"Delay": 0.2})
    done = run("revoke", "--all")
    assert done.returncode == 0, done.stderr
    assert "already gone" in done.stdout


def test_revoke_asks_where_only_the_file_says_whose_credentials_they_are(run, bare):
    cloudformation, iam = bare.cloud.client("cloudformation"), bare.cloud.client("iam")
    cloudformation.delete_stack(StackName=bare.name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=bare.name, WaiterConfig={"Delay": 0.2})
    user = bare.mirror.user_name
    iam.create_user(UserName=user)
    iam.create_service_specific_credential(UserName=user, ServiceName="codecommit.amazonaws.com")
    asked = run("revoke", "--all")
    assert (asked.returncode, f"Only mirrors.yaml says that '{user}' is the user of" in asked.stderr) == (1, True)
    assert run("revoke", "--all", "--yes").returncode == 0
    assert iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"] == []


def test_revoke_wants_to_know_what(run):
    assert "Name one credential" in run("revoke").stderr
    assert "Name one credential" in run("revoke", "ACCAX", "--all").stderr


FAILURES = {
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "there are no AWS credentials; run 'aws sso login'",
    ),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, "AWS does not recognise these credentials"),
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "not recognise these credentials (SignatureDoesNotMatch)"),
    "wrong region": (
        {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"},
        "is not in region us-east-1 of this account; run 'codecommit-mirror up",
    ),
    "no region": ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "has no region; set AWS_REGION, or write region: in"),
    "the region of AWS_REGION alone": (
        {"AWS_DEFAULT_REGION": "", "AWS_REGION": "us-east-1"},
        "not in region us-east-1",
    ),
    "an endpoint that is no URL": ({"AWS_ENDPOINT_URL": "127.0.0.1:1"}, "correct AWS_ENDPOINT_URL"),
    "no such profile": ({"AWS_PROFILE": "nobody"}, "(nobody) could not be found; correct AWS_PROFILE."),
    "nothing listens": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS cannot be reached"),
}


@pytest.mark.parametrize(("environment", "words"), FAILURES.values(), ids=FAILURES)
def test_each_failure_is_one_sentence_with_the_remedy(run, environment, words):
    done = run("list", **environment)
    assert done.returncode == 1
    assert words in done.stderr
    # Without a network there is a word before the error.
    error = done.stderr.removeprefix("127.0.0.1:9 cannot be reached; trying again\n")
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1


def test_a_denied_call_names_the_permission(run, bare, cloud):
    iam = cloud.client("iam")
    iam.create_user(UserName="limited")
    try:
        key = iam.create_access_key(UserName="limited")["AccessKey"]
        iam.put_user_policy(
            UserName="limited",
            PolicyName="stacks",
            PolicyDocument=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}],
                }
            ),
        )
        done = run("issue", AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    finally:
        iam.delete_access_key(UserName="limited", AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName="limited", PolicyName="stacks")
        iam.delete_user(UserName="limited")
    assert done.returncode == 1
    assert "AWS denies iam:ListAttachedUserPolicies; ask for that permission" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_id_that_is_none_is_refused(run):
    done = run("revoke", "NOPE")
    assert done.returncode == 1
    assert "error: 'NOPE' is not the id of a credential" in done.stderr


def test_another_account_than_the_mirrors_is_refused(command, bare, tmp_path):
    (tmp_path / "mirrors.yaml").write_text(
        f'mirrors:\n  {bare.name}:\n    account: "999999999999"\n'
        "    azure: {organization: contoso, project: Shop, repository: MyRepo}\n"
    )
    for arguments in (["list", bare.name], ["revoke", bare.name, "--all"], ["issue", bare.name]):
        done = command("credentials", *arguments)
        assert done.returncode == 1
        assert "belongs to account 999999999999, but the AWS credentials are for 111122223333" in done.stderr


def test_a_user_that_was_deleted_by_hand_is_one_sentence(run, bare, cloud):
    iam = cloud.client("iam")
    iam.detach_user_policy(UserName=bare.user, PolicyArn=bare.outputs["PushPolicyArn"])
    iam.delete_user(UserName=bare.user)
    done = run("issue", "--show")
    assert "'codecommit-mirror up' restores it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_password_that_cannot_be_written_is_revoked(bare):
    arguments = ("credentials", "issue", bare.name, "--show", "--azure-repo-url", bare.mirror.azure.clone_url)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "codecommit_mirror", *arguments],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "was revoked; free some space and run again" in done.stderr
    assert listed(bare) == []


def test_an_issued_credential_does_not_show_its_password(bare):
    issued = git_credentials.issue(bare.cloud.client("iam"), bare.user, bare.name)
    assert issued.password not in repr(issued)
