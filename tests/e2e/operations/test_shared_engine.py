"""One engine for every mirror: stubs that extend a template, its upgrade, and what may not undo it."""

import itertools
import os
import re
import secrets
from datetime import UTC, datetime, timedelta

import pytest

from codecommit_mirror.azure import pipeline
from codecommit_mirror.checks.judging import Limits, judge
from codecommit_mirror.checks.reading import read
from codecommit_mirror.config.load import load_mirrors
from codecommit_mirror.errors import MirrorError
from localcloud import sample
from localcloud.azure import repos

from ..conftest import azure_environment

counter = itertools.count()
LIMITS = Limits(datetime.now(UTC), timedelta(hours=1))


class Shared:
    """A mirror whose engine is in a repository of another project."""

    def __init__(self, journey, project="Platform", pipelines=None) -> None:
        self.journey, self.cloud = journey, journey.cloud
        self.repository = f"mirrors-{next(counter)}-{os.getpid()}"
        self.bare = self.cloud.create_azure_repository("contoso", project, self.repository)
        sample.fill(self.bare, commits=1, branches=0, tags=0)
        journey.config.write_text(f"{journey.config.read_text()}engine: {{repository: {project}/{self.repository}}}\n")
        (journey.mirror,) = load_mirrors(journey.config, journey.name)

    def template(self):
        return sample.git(self.bare, "show", "main:mirror-engine.yml")

    def commits(self):
        return sample.git(self.bare, "log", "--format=%s", "main").splitlines()

    def write(self, text):
        repository = repos.Repository(self.bare, "", "", "", "", "")
        new = repository.commit(sample.refs(self.bare)["refs/heads/main"], {"mirror-engine.yml": text}, "Another")
        sample.git(self.bare, "update-ref", "refs/heads/main", new)

    def checks(self):
        judged = judge(read(self.journey.context()), LIMITS)
        return {check.name: check for check in judged.checks}


@pytest.fixture
def manager(swift, monkeypatch):
    """Let commands have a token with the scope that another project's repository takes."""
    token = secrets.token_urlsafe(30)
    scopes = ["vso.code_write", "vso.build_execute", "vso.project", "vso.pipelineresources_manage"]
    swift.cloud.azure.add_token(token, scopes)
    monkeypatch.setattr(
        "tests.e2e.operations.journeys.azure_environment",
        lambda cloud: {**azure_environment(cloud), "AZURE_DEVOPS_EXT_PAT": token},
    )
    return swift


def test_the_engine_of_another_project_runs_by_a_stub_of_two_kilobytes(manager):
    shared = Shared(manager)
    manager.up()
    manager.assert_up()
    stub = sample.git(manager.source, "show", "main:azure-pipelines-mirror.yml")
    assert len(stub.encode()) < 2000
    assert stub == pipeline.render(read(manager.context()).mirror)
    assert shared.template() == pipeline.render_engine()
    assert "the engine that the mirrors share" in shared.commits()[0]
    (step,) = [line for line in manager.said.splitlines() if "plan: + engine of all mirrors" in line]
    assert re.search(rf"'mirror-engine.yml' on 'main' of '{shared.repository}': 1\.\d+\.\d+ \([0-9a-f]{{12}}\)", step)
    assert manager.up() == []
    check = shared.checks()["engine"]
    assert check.verdict == "warning"
    assert check.remedy.startswith("require a reviewer there who neither made nor last pushed the change")
    shared.cloud.azure.protect_branch("contoso", "Platform", shared.repository, "main")
    assert shared.checks()["engine"].verdict == "ok"
    shared.write(shared.template().replace("END_OF_MIRROR_ENGINE", "END_OF_ANOTHER_ENGINE"))
    check = shared.checks()["engine"]
    assert (check.verdict, "is not what this version renders" in check.message) == ("warning", True)
    shared.write(pipeline.render_engine())
    manager.down()
    # It is that of others, too.
    assert shared.template() == pipeline.render_engine()


def test_a_token_without_the_scope_is_told_before_a_run_waits_for_a_person(swift):
    Shared(swift)
    with pytest.raises(MirrorError, match=r"needs the scope Pipeline Resources \(use and manage\)"):
        swift.up()
    swift.down()


def test_an_upgrade_is_one_commit_and_an_older_version_does_not_undo_it(swift, monkeypatch):
    shared = Shared(swift, project="Shop")
    swift.up()
    ours, stub = shared.template(), sample.refs(swift.source)["refs/heads/main"]
    newer = ours.replace("#   engine:  1.", "#   engine:  9.")
    shared.write(newer)
    assert shared.checks()["engine"].message.startswith("9.")
    assert "is newer than this" in shared.checks()["engine"].message
    with pytest.raises(MirrorError, match=r"carries the engine 9\.\d+\.\d+, which a newer codecommit-mirror wrote"):
        swift.up()
    assert shared.template() == newer
    swift.rotate()
    shared.write(ours.replace("#   engine:  1.", "#   engine:  0."))
    assert "is outdated" in shared.checks()["engine"].message
    before = shared.commits()
    swift.up()
    assert shared.template() == ours
    assert len(shared.commits()) == len(before) + 1
    assert sample.refs(swift.source)["refs/heads/main"] == stub
    shared.write("jobs: []\n")
    with pytest.raises(MirrorError, match="was not written by codecommit-mirror"):
        swift.up()
    shared.write(ours)
    swift.down()


def test_a_protected_branch_gets_the_engine_by_a_pull_request(swift):
    shared = Shared(swift, project="Shop")
    shared.cloud.azure.protect_branch("contoso", "Shop", shared.repository, "main")
    swift.up()
    assert "merge its pull request, then run this again" in swift.row.message
    assert "mirror-engine.yml" not in sample.git(shared.bare, "ls-tree", "--name-only", "main")
    proposed = sample.refs(shared.bare)["refs/heads/codecommit-mirror/engine"]
    planted = sample.commit(shared.bare, "codecommit-mirror/engine", "Rides along", parent=proposed)
    with pytest.raises(MirrorError, match=r"'codecommit-mirror/engine' of .* has commits by someone else"):
        swift.up()
    assert sample.refs(shared.bare)["refs/heads/codecommit-mirror/engine"] == planted
    sample.git(shared.bare, "update-ref", "refs/heads/codecommit-mirror/engine", proposed)
    sample.git(shared.bare, "update-ref", "refs/heads/main", proposed)
    swift.up()
    swift.assert_up()
    swift.down()


def test_another_repository_with_the_engines_name_is_refused(swift):
    shared = Shared(swift, project="Shop")
    identifier = "00000000-0000-4000-8000-000000000000"
    place = f"{{repository: Shop/{shared.repository}, repository_id: {identifier}}}"
    swift.config.write_text(re.sub(r"engine: .*", f"engine: {place}", swift.config.read_text()))
    (swift.mirror,) = load_mirrors(swift.config, swift.name)
    with pytest.raises(MirrorError, match=f"but engine.repository_id is {identifier}: it is another repository"):
        swift.up()


def test_a_mirror_goes_to_the_shared_engine_and_back(swift):
    own = swift.config.read_text()
    swift.up()
    assert "END_OF_MIRROR_ENGINE" in sample.git(swift.source, "show", "main:azure-pipelines-mirror.yml")
    Shared(swift, project="Shop")
    swift.up()
    swift.assert_up()
    swift.config.write_text(own)
    (swift.mirror,) = load_mirrors(swift.config, swift.name)
    swift.up()
    swift.assert_up()
    swift.down()
