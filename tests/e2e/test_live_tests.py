"""The live tests themselves, against the embedded cloud: what is run on real accounts has run before."""

import os
import re
import subprocess
import sys

import pytest

from tests.live.conftest import ASSUMPTIONS, read_assumptions, render_report, verdict

from .conftest import ROOT

pytestmark = pytest.mark.long


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


def test_they_pass_report_and_leave_nothing(bootstrapped, tmp_path):
    done = run(
        AZURE_DEVOPS_EXT_PAT=bootstrapped.manager_token,
        MIRROR_LIVE_PROJECT=f"{bootstrapped.azure_url}/contoso/Shop",
        MIRROR_LIVE_REPORT=str(tmp_path / "report.md"),
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "15 passed" in done.stdout
    report = tmp_path.joinpath("report.md").read_text()
    assert report in done.stdout
    results = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .+ \| ([a-z ]+) \|$", report, re.MULTILINE))
    assert results.keys() == read_assumptions(ASSUMPTIONS.read_text()).keys()
    assert "did not hold" not in results.values()
    assert results["codecommit-aborts"] == results["codecommit-other-refs"] == "held"
    assert results["github-outputs"] == "not tried"
    assert "- CodeCommit to `git-receive-pack`: `side-band-64k report-status delete-refs thin-pack`\n" in report
    assert "- Azure Repos to `git-upload-pack`: `multi_ack " in report
    assert bootstrapped.manager_token not in done.stdout
    users = [user["UserName"] for user in bootstrapped.client("iam").list_users()["Users"]]
    repositories = [r["repositoryName"] for r in bootstrapped.client("codecommit").list_repositories()["repositories"]]
    assert not [name for name in (*users, *repositories) if "mirror-live" in name]
    assert not list((bootstrapped.root / "azure").rglob("mirror-live-*"))


def test_without_accounts_they_are_not_run():
    done = run(MIRROR_LIVE_PROJECT="")
    assert "15 skipped" in done.stdout


def test_a_line_holds_when_every_test_of_it_passed():
    assert verdict(["passed", "passed"]) == "held"
    assert verdict(["passed", "failed"]) == "did not hold"
    assert verdict(["passed", "skipped"]) == verdict([]) == "not tried"
    report = render_report({"a": "A is so", "b": "B is so"}, {"a": ["failed"]}, ["seen"])
    assert "| `a` | A is so | did not hold |\n| `b` | B is so | not tried |\n" in report
    assert report.endswith("- seen\n")


def test_every_assumption_that_a_live_test_tries_is_in_the_documentation():
    tests = (ROOT / "tests" / "live" / "test_journey.py").read_text()
    tried = set(re.findall(r'"([a-z0-9-]+)"', "".join(re.findall(r"pytest.mark.tries\((.*)\)", tests))))
    assert tried <= read_assumptions(ASSUMPTIONS.read_text()).keys()
    assert len(tried) >= 15
