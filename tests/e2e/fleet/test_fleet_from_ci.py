"""A fleet from CI: an empty mirrors.yaml, discover, a merge; no secret is stored anywhere."""

import json
import os
import re

import pytest

from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.config.mirror import AzureRepository
from localcloud import LocalCloud, sample
from localcloud.azure.service_connections import organization_id
from tests.e2e.conftest import bootstrap
from tests.e2e.test_provisioning import CONNECTION, DEPLOY, Infrastructure, linked, log, wait_for

pytestmark = pytest.mark.long

SIZE, REMOVED, ADDED = int(os.environ.get("FLEET_SIZE", "6")), 3, 2
"""FLEET_SIZE=50 tries it with a fleet, and with CI_INSTALLS=1 from the wheel; benchmarks.fleet does so with 500."""
FILE = """\
# Our mirrors.
defaults:
  account: "{account}"
  region: {region}
  source_auth: job-token
  replica_auth: role
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
ci:
  azure:
    organization: contoso
    organization_id: {organization_id}
    project: Platform
    repository: mirrors
    service_connection: ci-in-azure
mirrors: {{}}
"""
SECRETS = re.compile(r"\beyJ[\w-]+\.[\w-]+\.|\bASIA[A-Z0-9]{12,}|\b\d{8}T\d{6}Z[0-9a-f]{64}")
"""Tokens of OpenID Connect, keys of sessions, signed passwords."""


class FleetFromCi(Infrastructure):
    """The repository of mirrors.yaml, and a project with sources."""

    def __init__(self, cloud, folder):
        super().__init__(cloud, folder)
        self.sources = {}
        place = {"account": cloud.account, "region": cloud.region, "server": cloud.azure_url}
        place["organization_id"] = organization_id("contoso")
        (folder / "mirrors.yaml").write_text(FILE.format(**place))
        shop = AzureRepository(organization="contoso", project="Shop", repository="x", server=cloud.azure_url)
        self.shop = AzureDevOps(shop, AzureToken(cloud.operator_token, False, "test", cloud.azure_url))

    def add_source(self, name):
        """Create a source with a little history."""
        self.sources[name] = self.cloud.create_azure_repository("contoso", "Shop", name)
        sample.fill(self.sources[name], commits=3, branches=1, tags=1)

    def discover(self, *options):
        """Add what is new to mirrors.yaml, as a person or a scheduled job does; return the names."""
        arguments = ["discover", "--project", "Shop", "--write", "--json", *options]
        found = json.loads(self.run("codecommit-mirror", *arguments, AZURE_DEVOPS_EXT_PAT=self.cloud.operator_token))
        return [one["mirror"] for one in found["repositories"] if one["state"] == "new"]

    def merge(self):
        """Commit on main, and return the run that it starts, once it has ended or waits for a person."""
        before = {build.id for build in self.azure.builds(self.definition)}
        self.commit("main")

        def ended():
            found = [build for build in self.azure.builds(self.definition) if build.id not in before]
            return next((build for build in found if build.done or build.id in self.cloud.azure.questions()), None)

        return wait_for(ended, seconds=900)

    def pipelines(self):
        """The definitions of the mirrors' project."""
        return {d.name: d for d in self.shop.find_definitions()}


@pytest.fixture
def fleet(tmp_path):
    with LocalCloud() as cloud:
        bootstrap(cloud)
        made = FleetFromCi(cloud, tmp_path / "infrastructure")
        made.run("cdk", "deploy", "codecommit-mirror-ci", "--require-approval", "never", "--no-notices")
        rendered = made.run("codecommit-mirror", "ci", "render", "azure")
        (made.folder / "azure-pipelines.yml").write_text(linked(rendered))
        role = f"arn:aws:iam::{cloud.account}:role/{DEPLOY}"
        cloud.azure.add_service_connection("contoso", "Platform", DEPLOY, role, ["refs/heads/main"])
        made.add_azure_identity()
        cloud.azure.add_parallel_jobs(3)
        made.commit("main")
        made.definition = made.create_pipeline()
        for name in (DEPLOY, CONNECTION):
            cloud.azure.permit_pipeline("contoso", "Platform", name, made.definition.id)
        yield made


def assert_no_secret(fleet):
    """No stored secret: in no variable, no log before masking, no template, no output, no file."""
    iam, cloudformation = fleet.cloud.client("iam"), fleet.cloud.client("cloudformation")
    assert [user["UserName"] for user in iam.list_users()["Users"]] == ["operator"]
    texts = [(fleet.folder / "mirrors.yaml").read_text()]
    for definition in fleet.pipelines().values():
        assert set(definition.variables) == {"AZURE_REPO_URL", "AWS_REPO_URL", "AWS_ROLE_ARN"}
        assert not any(variable.get("isSecret") for variable in definition.variables.values())
        texts += ["\n".join(fleet.cloud.azure.run_log(b.id)["unmasked"]) for b in fleet.shop.builds(definition)]
    for build in fleet.azure.builds(fleet.definition):
        texts += ["\n".join(fleet.cloud.azure.run_log(build.id)["unmasked"])]
    for stack in cloudformation.describe_stacks()["Stacks"]:
        texts += [json.dumps([stack.get("Outputs"), stack.get("Parameters"), stack.get("Tags")])]
        texts += [json.dumps(cloudformation.get_template(StackName=stack["StackName"])["TemplateBody"])]
    for text in texts:
        assert not SECRETS.search(text)
        assert fleet.cloud.operator_token not in text


def test_a_merge_brings_a_fleet_up_and_another_one_makes_it_what_the_file_says(fleet):
    cloud = fleet.cloud
    names = [f"service-{number}" for number in range(SIZE)]
    for name in names:
        fleet.add_source(name)
    proposal = ["discover", "--project", "Shop", "--pull-request", "--include", names[0]]
    for more in ([], ["--include", names[1]]):
        fleet.run("codecommit-mirror", *proposal, *more, AZURE_DEVOPS_EXT_PAT=cloud.operator_token)
    branch = "refs/heads/codecommit-mirror/discover"
    assert f"  {names[1]}:\n" in sample.git(fleet.bare, "show", f"{branch}:mirrors.yaml")
    assert fleet.azure.pull_request(fleet.azure.repository("mirrors"), "codecommit-mirror/discover", "main")
    sample.commit(fleet.bare, "codecommit-mirror/discover", "Not yet")
    edited = sample.refs(fleet.bare)[branch]
    fleet.run("codecommit-mirror", *proposal, "--include", "*", AZURE_DEVOPS_EXT_PAT=cloud.operator_token)
    assert sample.refs(fleet.bare)[branch] == edited
    assert sorted(fleet.discover()) == sorted(names)
    build = fleet.merge()
    assert build.result == "succeeded", log(fleet, build)
    stages = cloud.azure.run_log(build.id)["stages"]
    assert (stages["deploy"], stages["verify"], stages["teardown"]) == ("succeeded", "succeeded", "skipped")
    assert fleet.run("codecommit-mirror", "verify", "--all", AZURE_DEVOPS_EXT_PAT=cloud.operator_token).startswith(
        f"{SIZE} of {SIZE} mirrors succeeded."
    )
    assert len(fleet.pipelines()) == SIZE
    assert_no_secret(fleet)

    text = (fleet.folder / "mirrors.yaml").read_text()
    for name in names[:REMOVED]:
        text = re.sub(rf"  {name}:\n(    .*\n)+", "", text)
    (fleet.folder / "mirrors.yaml").write_text(text)
    added = [f"new-{number}" for number in range(ADDED)]
    for name in added:
        fleet.add_source(name)
    excluded = [option for name in names[:REMOVED] for option in ("--exclude", name)]
    assert set(fleet.discover(*excluded)) == set(added)
    # One that cannot be deployed keeps neither the others nor the removal from being made so.
    cloud.client("codecommit").create_repository(repositoryName=added[0])
    build = fleet.merge()
    assert set(cloud.azure.questions()[build.id].rpartition(": ")[2].split()) == set(names[:REMOVED])
    cloud.azure.decide(build.id, True)
    build = wait_for(lambda: b if (b := fleet.azure.build(build.id)).done else None, seconds=600)
    run = cloud.azure.run_log(build.id)
    assert build.result == "failed"
    assert list(run["stages"].values()) == ["skipped", "failed", "succeeded", "succeeded", "succeeded"], log(
        fleet, build
    )
    assert f"failed: {added[0]}" in "\n".join(run["summaries"])
    kept = {*names[REMOVED:], added[1]}
    assert set(fleet.pipelines()) == {f"codecommit-mirror-{name}" for name in kept}

    cloud.client("codecommit").delete_repository(repositoryName=added[0])
    (fleet.folder / "README.md").write_text("Ours.\n")
    build = fleet.merge()
    assert build.result == "succeeded", log(fleet, build)
    kept |= {added[0]}
    assert set(fleet.pipelines()) == {f"codecommit-mirror-{name}" for name in kept}
    assert {path.stem for path in cloud.replica_path("x").parent.glob("*.git")} == kept
    for name in names[:REMOVED]:
        assert sample.git(fleet.sources[name], "ls-tree", "--name-only", "main").split() == ["docs"]
    assert_no_secret(fleet)
