"""One file for two accounts: each account's job deploys its own mirrors, and one status shows them all."""

import json
import os
import subprocess
import sys

import pytest

from localcloud import LocalCloud, sample

from ..conftest import ROOT, azure_environment, bootstrap

FILE = """\
format: 1
defaults:
  source_auth: job-token
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
ci:
  - {{account: "{first}", region: eu-west-1, github: {{repository: contoso/mirrors}}}}
  - {{account: "{second}", region: eu-central-1, name: finance, github: {{repository: contoso/mirrors}}}}
guard:
  - {{account: "{first}", region: eu-west-1, email: platform@example.com}}
  - {{account: "{second}", region: eu-central-1, email: finance@example.com}}
mirrors:
  Orders: {{azure: {{repository: Orders}}, account: "{first}", profile: shop}}
  Invoices: {{azure: {{repository: Invoices}}, account: "{second}", profile: finance}}
"""


@pytest.fixture
def clouds():
    with LocalCloud() as first, LocalCloud(account="444455556666", region="eu-central-1") as second:
        for cloud in (first, second):
            bootstrap(cloud)
        for name in ("Orders", "Invoices"):
            sample.fill(first.create_azure_repository("contoso", "Shop", name))
        yield first, second


@pytest.fixture
def run(clouds, tmp_path):
    """Return a function that runs a command with the one file."""
    config = tmp_path / "mirrors.yaml"
    accounts = {"first": clouds[0].account, "second": clouds[1].account}
    config.write_text(FILE.format(server=clouds[0].azure_url, **accounts))

    def command(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "codecommit_mirror", *arguments, "--config", str(config)],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **azure_environment(clouds[0]), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return command


def profiles(clouds, folder):
    """The variables of a person whose profiles are for both accounts."""
    lines = []
    for name, cloud in zip(("shop", "finance"), clouds, strict=True):
        keys = cloud.environment()
        lines += [f"[profile {name}]", f"endpoint_url = {cloud.aws_url}"]
        lines += [f"{key.lower()} = {keys[key]}" for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    (folder / "config").write_text("\n".join(lines) + "\n")
    named = ",".join(cloud.account for cloud in clouds)
    return {"AWS_CONFIG_FILE": str(folder / "config"), "CODECOMMIT_MIRROR_AWS_ACCOUNTS": named}


def test_each_accounts_job_deploys_its_own_and_one_status_shows_all(clouds, run, tmp_path):
    for cloud, name in zip(clouds, ("Orders", "Invoices"), strict=True):
        job = {**cloud.environment(), "CODECOMMIT_MIRROR_ACCOUNT": cloud.account}
        done = run("plan", "--all", "--no-azure", **job)
        assert f"+ stack '{name}' in account {cloud.account}, {cloud.region}\n" in done.stdout, done.stderr
        done = run("up", "--all", "--no-azure", "--yes", **job)
        assert done.returncode == 0, done.stderr
        listed = cloud.client("codecommit").list_repositories()["repositories"]
        assert [one["repositoryName"] for one in listed] == [name]
    shown = run("status", "--json", **profiles(clouds, tmp_path))
    mirrors = {one["mirror"]: one for one in json.loads(shown.stdout)["mirrors"]}
    assert set(mirrors) == {"Orders", "Invoices"}
    for mirror in mirrors.values():
        checks = {check["name"]: check for check in mirror["checks"]}
        assert checks["stack"]["verdict"] == "ok", checks
