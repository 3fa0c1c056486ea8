"""The real CDK CLI on the embedded cloud: deploy, deploy again, diff, destroy; and synthesis with nothing at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localcloud import LocalCloud

from .conftest import ROOT

CDK = ROOT / "node_modules" / ".bin" / "cdk"
MIRRORS = """\
defaults:
  azure: {organization: contoso, project: Shop}
mirrors:
  my.repo_1:
    azure: {repository: MyRepo}
  protected:
    azure: {repository: Other}
    on_destroy: retain
    termination_protection: true
"""


@pytest.fixture(scope="module")
def account():
    """A cloud of this module's own, bootstrapped."""
    with LocalCloud() as cloud:
        done = cdk(cloud, cloud.root, "bootstrap", f"aws://{cloud.account}/{cloud.region}")
        assert done.returncode == 0, done.stdout
        yield cloud


def cdk(cloud, folder, *arguments, **environment):
    """Run the CDK CLI on this project's app, with the mirrors file of a folder."""
    config = Path(folder) / "mirrors.yaml"
    config.write_text(MIRRORS)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [CDK, *arguments, "-c", f"config={config}", "--output", str(Path(folder) / "cdk.out")],
        cwd=ROOT,
        env={**clean, "PATH": path, **(cloud.environment() if cloud else {}), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where the CLI writes to depends on CI being set
        text=True,
        check=False,
    )


def test_deploy_twice_diff_and_destroy(account, tmp_path):
    first = cdk(account, tmp_path, "deploy", "my.repo_1", "--require-approval", "never")
    assert first.returncode == 0, first.stdout
    (stack,) = account.client("cloudformation").describe_stacks(StackName="my-repo-1")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert sorted(outputs) == ["PushPolicyArn", "PushUserName", "ReplicaArn", "ReplicaUrl"]
    assert outputs["ReplicaArn"] == "arn:aws:codecommit:eu-west-1:111122223333:my.repo_1"
    assert outputs["ReplicaUrl"].endswith("/v1/repos/my.repo_1")

    second = cdk(account, tmp_path, "deploy", "my.repo_1", "--require-approval", "never")
    assert second.returncode == 0
    assert "(no changes)" in second.stdout
    diff = cdk(account, tmp_path, "diff", "my.repo_1", "--fail")
    assert diff.returncode == 0, diff.stdout
    assert "There were no differences" in diff.stdout

    iam = account.client("iam")
    issued = iam.create_service_specific_credential(
        UserName=outputs["PushUserName"], ServiceName="codecommit.amazonaws.com"
    )["ServiceSpecificCredential"]
    refused = cdk(account, tmp_path, "destroy", "my.repo_1", "--force")
    assert refused.returncode == 1
    assert "DeleteConflict" in refused.stdout
    assert account.replica_path("my.repo_1").is_dir()
    iam.delete_service_specific_credential(
        UserName=outputs["PushUserName"], ServiceSpecificCredentialId=issued["ServiceSpecificCredentialId"]
    )
    destroyed = cdk(account, tmp_path, "destroy", "my.repo_1", "--force")
    assert destroyed.returncode == 0, destroyed.stdout
    assert not account.replica_path("my.repo_1").exists()


def test_termination_protection_makes_destroy_refuse(account, tmp_path):
    assert cdk(account, tmp_path, "deploy", "protected", "--require-approval", "never").returncode == 0
    refused = cdk(account, tmp_path, "destroy", "protected", "--force")
    assert refused.returncode == 1
    assert "TerminationProtection is enabled" in refused.stdout
    cloudformation = account.client("cloudformation")
    cloudformation.update_termination_protection(StackName="protected", EnableTerminationProtection=False)
    assert cdk(account, tmp_path, "destroy", "protected", "--force").returncode == 0
    assert account.replica_path("protected").is_dir()


NOTHING = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def offline(tmp_path, *arguments):
    """Run the CLI without credentials, and with a proxy that refuses every connection."""
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "CDK_HOME": str(tmp_path)}
    return cdk(None, tmp_path, *arguments, **NOTHING, **closed)


def test_synth_needs_no_credentials_and_no_network(tmp_path):
    done = offline(tmp_path, "synth", "--quiet")
    assert done.returncode == 0, done.stdout
    names = sorted(path.name for path in (tmp_path / "cdk.out").glob("*.template.json"))
    assert len(names) == 2


def test_one_mirror_alone_is_synthesised(tmp_path):
    done = offline(tmp_path, "synth", "--quiet", "-c", "mirror=protected")
    assert done.returncode == 0, done.stdout
    assert [path.name for path in (tmp_path / "cdk.out").glob("*.template.json")] == ["protected.template.json"]


def test_a_mirror_can_be_given_without_a_file(tmp_path):
    url = "https://dev.azure.com/contoso/Shop/_git/MyRepo"
    done = offline(tmp_path, "synth", "--quiet", "-c", "replica=New", "-c", f"azure_repo_url={url}")
    assert done.returncode == 0, done.stdout
    document = json.loads((tmp_path / "cdk.out" / "New.template.json").read_text())
    (repository,) = (r for r in document["Resources"].values() if r["Type"] == "AWS::CodeCommit::Repository")
    assert url in repository["Properties"]["RepositoryDescription"]


def test_a_mistake_is_a_sentence_and_no_traceback(tmp_path):
    done = offline(tmp_path, "synth", "--quiet", "-c", "mirror=nobody")
    assert done.returncode == 1
    assert "there is no mirror 'nobody'; it has my.repo_1, protected." in done.stdout
    assert "Traceback" not in done.stdout
