"""Who gets at a replica over Git: published clients that sign their passwords, and the credentials of sessions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import boto3
import git_remote_codecommit
import pytest

from codecommit_mirror import engine_api
from codecommit_mirror.aws import git_signature
from codecommit_mirror.operations import verification
from localcloud import sample

from .conftest import ROOT, counter

BIN = Path(sys.executable).parent


def role_credentials(cloud, name, *actions):
    """Return the credentials of a session: of a role that may do these on every repository."""
    iam, sts = cloud.client("iam"), cloud.client("sts")
    trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": cloud.account}}]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", **trust}))
    policy = {"Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}], "Version": "2012-10-17"}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    return sts.assume_role(RoleArn=role["Role"]["Arn"], RoleSessionName="alice")["Credentials"]


def environment_of(credentials):
    return {
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["SessionToken"],
    }


@pytest.fixture
def replica(rig):
    sample.fill(rig.source)
    assert rig.run().result == "succeeded"
    return rig


def listed_with_credential_helper(rig, **environment):
    # The host is not Amazon's here.
    helper = f'!f() {{ "{BIN / "aws"}" codecommit credential-helper "$1" --ignore-host-check; }}; f'
    options = ["-c", "credential.helper=", "-c", f"credential.helper={helper}", "-c", "credential.UseHttpPath=true"]
    isolated = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *options, "ls-remote", rig.outputs["ReplicaUrl"]],
        env={**isolated, **rig.cloud.environment(), "GIT_TERMINAL_PROMPT": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_aws_clis_credential_helper_reads_the_replica(replica):
    done = listed_with_credential_helper(replica)
    assert done.returncode == 0, done.stderr
    assert "refs/heads/main" in done.stdout
    wrong = listed_with_credential_helper(replica, AWS_SECRET_ACCESS_KEY="wrong")
    assert "403" in wrong.stderr


def test_the_aws_clis_credential_helper_works_with_a_session_too(replica):
    session = environment_of(role_credentials(replica.cloud, f"reader-{replica.name}", "codecommit:GitPull"))
    done = listed_with_credential_helper(replica, **session)
    assert done.returncode == 0, done.stderr
    assert "refs/heads/main" in done.stdout
    assert "403" in listed_with_credential_helper(replica, **{**session, "AWS_SESSION_TOKEN": "x"}).stderr
    assert "403" in listed_with_credential_helper(replica, **{**session, "AWS_SESSION_TOKEN": ""}).stderr


def test_the_policy_of_the_role_decides(replica):
    session = environment_of(role_credentials(replica.cloud, f"writer-{replica.name}", "codecommit:GitPush"))
    assert "403" in listed_with_credential_helper(replica, **session).stderr


@pytest.mark.parametrize("kind", ["access key", "session"])
def test_git_remote_codecommit_signs_as_we_do(replica, kind):
    """Its own signer, for a host without the port that the embedded endpoint has."""
    given = {
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    if kind == "session":
        session = role_credentials(replica.cloud, f"grc-{replica.name}", "codecommit:GitPull")
        given = {
            "aws_access_key_id": session["AccessKeyId"],
            "aws_secret_access_key": session["SecretAccessKey"],
            "aws_session_token": session["SessionToken"],
        }
    aws = boto3.Session(region_name=replica.cloud.region, **given)
    url = replica.outputs["ReplicaUrl"]
    credentials = SimpleNamespace(
        access_key=given["aws_access_key_id"],
        secret_key=given["aws_secret_access_key"],
        token=given.get("aws_session_token"),
    )
    theirs = git_remote_codecommit.sign(urlsplit(url).hostname, urlsplit(url).path, aws.region_name, credentials)
    user = credentials.access_key + (f"%{credentials.token}" if credentials.token else "")
    endpoint = verification.password_endpoint(url, user, theirs)
    assert "refs/heads/main" in engine_api.read_refs(endpoint, "git-upload-pack").refs
    assert git_signature.sign(aws, url)[0] == user
    assert "refs/heads/main" in verification.replica_refs(aws, url)


def test_an_operator_with_a_session_can_verify(replica, command):
    """The commonest kind of operator: single sign-on, or a role."""
    actions = ("codecommit:*", "cloudformation:Describe*", "sts:*", "iam:*")
    session = environment_of(role_credentials(replica.cloud, f"operator-{replica.name}", *actions))
    done = command(
        "verify",
        replica.name,
        "--azure-repo-url",
        replica.mirror.azure.clone_url,
        **session,
        AZURE_DEVOPS_EXT_PAT=replica.cloud.personal_access_token,
    )
    assert done.stdout.startswith("16 refs are equal.\n"), done.stderr


PROGRAM = """
import json, os
from codecommit_mirror.aws.session import account_of, environment_for_cdk, session_in
accounts = [account_of(session_in(region)) for region in ("eu-central-1", "us-east-1", "eu-west-1")]
given = environment_for_cdk()
print(json.dumps({"accounts": accounts, "removed": [name for name, value in given.items() if value is None]}))
os.environ.pop("AWS_PROFILE")
os.environ.update({name: value for name, value in given.items() if value})
print(account_of(session_in("eu-central-1")))
"""


def test_a_code_is_asked_for_once_and_the_cdk_cli_gets_the_session(cloud, tmp_path):
    role_credentials(cloud, "operators", "codecommit:ListRepositories")
    keys = cloud.environment()
    (tmp_path / "credentials").write_text(
        f"[me]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    role = f"arn:aws:iam::{cloud.account}:role/operators"
    (tmp_path / "config").write_text(
        f"[profile work]\nrole_arn = {role}\nsource_profile = me\nmfa_serial = arn:aws:iam::{cloud.account}:mfa/me\n"
    )
    kept = {name: value for name, value in keys.items() if "KEY" not in name}
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_PROFILE": "work",
    }
    # Without a terminal the code is read from the input, and a second question would find its end.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **kept, **files},
        input="123456\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, account = map(json.loads, done.stdout.replace("Enter MFA code", "\nEnter MFA code").splitlines()[-2:])
    assert found == {
        "accounts": [cloud.account] * 3,
        "removed": ["AWS_CREDENTIAL_EXPIRATION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"],
    }
    assert str(account).zfill(12) == cloud.account


MIRRORS_OF_TWO_ACCOUNTS = """\
defaults:
  azure: {{organization: contoso, project: Shop}}
  account: "{account}"
  region: {region}
mirrors:
  by-profile-{number}: {{azure: {{repository: One}}, profile: team}}
  by-role-{number}: {{azure: {{repository: Two}}, assume_role: "arn:aws:iam::{account}:role/deployer-{number}"}}
"""


def test_each_mirrors_account_is_signed_in_to_as_the_file_says(bootstrapped, tmp_path):
    """One command; the environment's own credentials may do nothing but assume the role."""
    cloud, number = bootstrapped, next(counter)
    role_credentials(cloud, f"deployer-{number}", "*")
    iam = cloud.client("iam")
    iam.create_user(UserName=f"me-{number}")
    statement = [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    iam.put_user_policy(UserName=f"me-{number}", PolicyName="p", PolicyDocument=policy)
    key = iam.create_access_key(UserName=f"me-{number}")["AccessKey"]
    keys = cloud.environment()
    (tmp_path / "credentials").write_text(
        f"[team]\naws_access_key_id = {keys['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    config = tmp_path / "mirrors.yaml"
    config.write_text(MIRRORS_OF_TWO_ACCOUNTS.format(account=cloud.account, region=cloud.region, number=number))
    environment = {
        **keys,
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }

    def up(named):
        return subprocess.run(
            [sys.executable, "-m", "codecommit_mirror", "up", "--all", "--config", str(config), "--no-azure", "--yes"],
            cwd=ROOT,
            env={**environment, **named},
            capture_output=True,
            text=True,
            check=False,
        )

    def deployed():
        names = {one["repositoryName"] for one in cloud.client("codecommit").list_repositories()["repositories"]}
        return names & {f"by-profile-{number}", f"by-role-{number}"}

    for named in ({}, {"CODECOMMIT_MIRROR_AWS_ACCOUNTS": "999988887777"}):
        refused = up(named)
        assert refused.returncode == 1
        for how in ("with the profile 'team'", f"as arn:aws:iam::{cloud.account}:role/deployer-{number}"):
            said = f"says to sign in to account {cloud.account} {how}, and your environment does not name that account"
            assert said in refused.stderr
    assert not deployed()
    done = up({"CODECOMMIT_MIRROR_AWS_ACCOUNTS": f"999988887777, {cloud.account}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(deployed()) == 2
