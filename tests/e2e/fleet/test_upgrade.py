"""An upgrade of a fleet to the next version: one commit, for every branch with the stub; no way back by accident."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from codecommit_mirror import engine_api
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.verification import source_endpoint
from localcloud import sample

from ..conftest import ROOT
from ..test_provisioning import wait_for

pytestmark = pytest.mark.long
SIZE = int(os.environ.get("FLEET_SIZE", "2"))
"""FLEET_SIZE=50 tries it with a fleet."""
NEXT = "1.1.0"


class Upgrade:
    """A fleet with one engine, and two versions of the software."""

    def __init__(self, fleet, folder) -> None:
        self.fleet, self.folder = fleet, folder
        engine = f"{fleet.names[0]}-engine"
        self.engine = fleet.cloud.create_azure_repository("contoso", "Shop", engine)
        sample.fill(self.engine, commits=1, branches=0, tags=0)
        fleet.config.write_text(f"engine: {{repository: Shop/{engine}}}\n{fleet.config.read_text()}")
        (folder / "cdk.json").write_text('{"app": "python3 -P -m codecommit_mirror.app"}')
        self.versions = {"this": ROOT, "next": folder / "next"}
        shutil.copytree(
            ROOT / "codecommit_mirror",
            self.versions["next"] / "codecommit_mirror",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        version = self.versions["next"] / "codecommit_mirror" / "engine" / "version.py"
        version.write_text(version.read_text().replace(f'"{engine_api.VERSION}"', f'"{NEXT}"'))

    def run(self, version, *arguments, ends_with=0):
        """Run a command of one of the versions, in the deployment repository."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "codecommit_mirror", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.versions[version])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ends_with, done.stdout + done.stderr
        return done.stdout if ends_with == 0 or "--json" in arguments else done.stderr

    def engine_shown(self, version):
        """What ``status`` says of the engine, which is the same for every mirror."""
        shown = self.run(version, "status", "--json", ends_with=3)
        checks = {
            mirror["mirror"]: check
            for mirror in json.loads(shown)["mirrors"]
            for check in mirror["checks"]
            if check["name"] == "engine"
        }
        assert set(checks) == set(self.fleet.names)
        (message,) = {check["message"] for check in checks.values()}
        return message

    def commits(self):
        """How many commits each source's branches and the engine's repository have together."""
        repositories = {**self.fleet.sources, "engine": self.engine}
        return {name: len(sample.git(bare, "rev-list", "--all").split()) for name, bare in repositories.items()}

    def push(self, mirror, branch):
        """Push a commit to a branch of a source over HTTP, as a developer does; return the log of the run it starts."""
        context = MirrorContext(mirror, os.environ, self.folder)
        endpoint, bare = source_endpoint(mirror, context.token), self.fleet.sources[mirror.name]
        clone = self.folder / f"{mirror.name}-{branch}.git"
        sample.git(self.folder, "clone", "-q", "--bare", str(bare), str(clone))
        sample.commit(clone, branch, "An urgent fix")
        (definition,) = context.azure.definitions_named(mirror.pipeline_name)
        before = {build.id for build in context.azure.builds(definition)}
        subprocess.run(
            ["git", "-C", str(clone), "push", "-q", endpoint.url, branch],
            env=engine_api.git_environment(os.environ, endpoint),
            check=True,
        )

        def ended():
            return next((b for b in context.azure.builds(definition) if b.done and b.id not in before), None)

        build = wait_for(ended, seconds=120)
        assert (build.result, build.branch) == ("succeeded", branch)
        return "\n".join(self.fleet.cloud.azure.run_log(build.id)["unmasked"])


@pytest.fixture
def upgrade(fleet_of, tmp_path):
    return Upgrade(fleet_of(SIZE, defaults="source_auth: job-token"), tmp_path)


def test_an_upgrade_is_one_commit_for_every_branch_with_the_stub_and_a_downgrade_is_refused(upgrade):
    fleet, this = upgrade.fleet, engine_api.VERSION
    upgrade.run("this", "up", "--all", "--yes")
    for source in fleet.sources.values():
        sample.git(source, "branch", "release/1", "main")
    current = r"{} \([0-9a-f]{{12}}\), but whoever may push to "
    assert re.match(current.format(this), upgrade.engine_shown("this"))
    before = upgrade.commits()
    assert re.match(rf"{this} .* is outdated", upgrade.engine_shown("next"))
    planned = upgrade.run("next", "plan", "--all")
    assert len(re.findall(rf"~ engine of all mirrors, .*: {this} \([0-9a-f]+\) -> {NEXT} \(", planned)) == 1
    upgrade.run("next", "up", "--all", "--yes")
    assert upgrade.commits() == {**before, "engine": before["engine"] + 1}
    assert re.match(current.format(NEXT), upgrade.engine_shown("next"))
    assert f"engine {NEXT} " in upgrade.push(fleet.mirrors[-1], "release/1")

    assert re.match(rf"{NEXT} .* is newer than this", upgrade.engine_shown("this"))
    refused = upgrade.run("this", "up", "--all", "--yes", "--json", ends_with=1)
    reasons = {one["mirror"]: one["message"] for one in json.loads(refused)["mirrors"] if one["result"] == "failed"}
    assert set(reasons) == set(fleet.names)
    for reason in reasons.values():
        assert f"carries the engine {NEXT}, which a newer codecommit-mirror wrote, and this is {this}" in reason
    assert upgrade.commits()["engine"] == before["engine"] + 1
    upgrade.run("this", "down", "--all", "--yes")
