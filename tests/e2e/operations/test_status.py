"""``status``, and reading a replica with the user's own credentials."""

import json
import re

import pytest

from codecommit_mirror.aws.stack import read_outputs
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import verification
from codecommit_mirror.operations.run import run_successfully
from localcloud import sample
from tests.e2e.conftest import azure_environment

from ..conftest import commit_file
from .journeys import MIRRORS, state_of


def test_status_is_for_people_and_for_monitors(quick, command):
    quick.rotate()
    url = quick.mirror.azure.clone_url
    arguments = ("status", quick.name, "--azure-repo-url", url)
    well = command(*arguments, **azure_environment(quick.cloud))
    assert well.returncode == 0, well.stdout + well.stderr
    assert "  ok           lag           in sync" in well.stdout
    assert "may push to the replica and do nothing else" in well.stdout
    assert f"account {quick.cloud.account}, {quick.cloud.region}" in well.stdout
    assert "/contoso/Shop/_build/results?buildId=" in well.stdout
    assert command(*arguments, "--failing", **azure_environment(quick.cloud)).stdout == (
        "No mirror needs attention, out of 1.\n"
    )
    sample.commit(quick.source, "main", "not mirrored")
    behind = command(*arguments, "--json", "--max-lag", "0", **azure_environment(quick.cloud))
    assert behind.returncode == 3
    (found,) = json.loads(behind.stdout)["mirrors"]
    assert (found["different"], found["verdict"], found["credentials"]) == (1, "warning", 1)
    assert found["last_run"]["result"] == "succeeded"
    iam = quick.cloud.client("iam")
    iam.create_access_key(UserName=quick.mirror.user_name)
    iam.create_login_profile(UserName=quick.mirror.user_name, Password="A-long-passphrase-1!")
    (credential,) = quick.credentials
    identifier = credential["ServiceSpecificCredentialId"]
    iam.update_service_specific_credential(
        UserName=quick.mirror.user_name, ServiceSpecificCredentialId=identifier, Status="Inactive"
    )
    dead = command(*arguments, **azure_environment(quick.cloud))
    assert dead.returncode == 1
    assert "the pipeline's Git credential is gone or inactive" in dead.stdout
    assert re.search("the user also has the access key A.*, a console password\n", dead.stdout)
    blind = command(*arguments, AZURE_DEVOPS_EXT_PAT="wrong")
    assert blind.returncode == 1
    assert "sign-in page" in blind.stdout


def test_an_edited_and_a_deleted_yaml_are_seen(quick, command):
    azure, mirror = quick.context().azure, quick.mirror
    arguments = ("status", quick.name, "--azure-repo-url", mirror.azure.clone_url, "--json")

    def verdict():
        (found,) = json.loads(command(*arguments, **azure_environment(quick.cloud)).stdout)["mirrors"]
        return {check["name"]: check["verdict"] for check in found["checks"]}["YAML"]

    home = azure.repository(quick.name)
    assert verdict() == "ok"
    for text, expected in (("steps: []\n", "warning"), (None, "failed")):
        tip = azure.tip(home, "main")
        commit_file(azure, home, "main", tip, mirror.pipeline_path, text=text, exists=True, comment="by hand [skip ci]")
        assert verdict() == expected


def test_a_mirror_whose_guard_is_missing_needs_attention(quick, command, tmp_path):
    config = tmp_path / "guarded.yaml"
    mirrors = MIRRORS.format(server=quick.cloud.azure_url, name=quick.name)
    config.write_text(mirrors + "guard: {email: ops@example.com}\n")
    done = command("status", "--config", str(config), **azure_environment(quick.cloud))
    assert f"warning: snapshot: the guard is not deployed in {quick.cloud.region}\n" in done.stdout
    assert "  cdk deploy codecommit-mirror-guard\n" in done.stdout
    config.write_text(mirrors + "guard: {email: ops@example.com, region: us-east-2}\n")
    elsewhere = command("status", "--config", str(config), **azure_environment(quick.cloud))
    assert f"the guard watches us-east-2, but the replica is in {quick.cloud.region}" in elsewhere.stdout


def test_the_operators_own_signature_reads_a_replica_and_a_wrong_one_does_not(quick, monkeypatch):
    context = quick.context()
    url = read_outputs(context.aws, quick.mirror).replica_url
    run_successfully(context, state_of(context))
    assert verification.replica_refs(context.aws, url) == sample.refs(quick.replica)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(MirrorError, match="your AWS credentials need codecommit:GitPull"):
        verification.replica_refs(quick.context().aws, url)
