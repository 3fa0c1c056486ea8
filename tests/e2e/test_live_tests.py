"""The live tests themselves, against the embedded cloud: what is run on real accounts has run before."""

import os
import subprocess
import sys

from .conftest import ROOT


def run(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/live", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_they_pass_and_leave_nothing(bootstrapped):
    done = run(
        AZURE_DEVOPS_EXT_PAT=bootstrapped.manager_token,
        MIRROR_LIVE_PROJECT=f"{bootstrapped.azure_url}/contoso/Shop",
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "7 passed" in done.stdout
    users = [user["UserName"] for user in bootstrapped.client("iam").list_users()["Users"]]
    repositories = [r["repositoryName"] for r in bootstrapped.client("codecommit").list_repositories()["repositories"]]
    assert not [name for name in (*users, *repositories) if "mirror-live" in name]
    assert not list((bootstrapped.root / "azure").rglob("mirror-live-*"))


def test_without_accounts_they_are_not_run():
    done = run(MIRROR_LIVE_PROJECT="")
    assert "7 skipped" in done.stdout
