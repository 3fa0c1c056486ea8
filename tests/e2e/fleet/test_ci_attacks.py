"""An unmerged pull request, and whoever else has no business with it, owns nothing in Azure DevOps through CI."""

import os
import subprocess

import pytest

from codecommit_mirror.rendering.ci import TIP
from localcloud import LocalCloud, sample
from localcloud.azure.tokens import BUILD_SERVICE
from tests.e2e.conftest import bootstrap
from tests.e2e.fleet.test_fleet_from_ci import FleetFromCi
from tests.e2e.test_provisioning import CONNECTION, wait_for

pytestmark = pytest.mark.long

PUSH = """\
python3 - <<'END'
import json, os, urllib.request
content = {{"content": "x", "contentType": "rawText"}}
change = {{"changeType": "add", "item": {{"path": "/backdoor-{tip}.py"}}, "newContent": content}}
body = {{
    "refUpdates": [{{"name": "refs/heads/main", "oldObjectId": "{tip}"}}],
    "commits": [{{"comment": "Nothing to see", "changes": [change]}}],
}}
request = urllib.request.Request(
    "{url}/contoso/Shop/_apis/git/repositories/{source}/pushes?api-version=7.1",
    json.dumps(body).encode(),
    {{"Authorization": "Bearer " + os.environ["TOKEN"], "Content-Type": "application/json"}},
)
print("pushed:", urllib.request.urlopen(request).status)
END"""
SIGN_IN = """\
          - task: AzureCLI@3
            inputs:
              connectionType: {kind}
              {field}: {connection}
              scriptType: bash
              scriptLocation: inlineScript
              inlineScript: |
                token=$(az account get-access-token --resource 499b84ac-1321-427f-aa17-267ca6975798 \\
                  --query accessToken --output tsv)
                echo "##vso[task.setvariable variable=azureToken;issecret=true]$token"
"""
HOSTILE = """\
trigger: none
stages:
  - stage: attack
    jobs:
      - job: attack
        pool: {{vmImage: ubuntu-24.04}}
        steps:
          - checkout: self
{sign_in}          - bash: |
              {push}
            env:
              TOKEN: $({token})
"""


class Company(FleetFromCi):
    """One source, CI's repository, and what attackers do there."""

    def attack(self, *, signs_in, kind="azureDevOps"):
        """Return a pipeline that pushes a back door to the source's main branch."""
        push = PUSH.format(tip=self.tip(), url=self.cloud.azure_url, source="shop")
        field = {"azureDevOps": "azureDevOpsServiceConnection", "azureRM": "azureSubscription"}[kind]
        return HOSTILE.format(
            sign_in=SIGN_IN.format(kind=kind, field=field, connection=CONNECTION) if signs_in else "",
            push=push.replace("\n", "\n              "),
            token="azureToken" if signs_in else "System.AccessToken",
        )

    def tip(self):
        return sample.refs(self.sources["shop"])["refs/heads/main"]

    def run_of(self, definition, branch):
        build = self.azure.queue(definition, branch)
        return wait_for(lambda: b if (b := self.azure.build(build.id)).done else None)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    with LocalCloud() as cloud:
        made = Company(cloud, tmp_path_factory.mktemp("company") / "infrastructure")
        made.add_source("shop")
        made.add_azure_identity()
        (made.folder / "azure-pipelines.yml").write_text(made.attack(signs_in=True))
        made.commit("main")
        made.definition = made.create_pipeline()
        cloud.azure.permit_pipeline("contoso", "Platform", CONNECTION, made.definition.id)
        cloud.azure.validate_pull_requests("contoso", "Platform", "mirrors", "main", made.definition.id)
        yield made


@pytest.fixture
def harmless(company):
    """Check that the source is as it was."""
    before = company.tip()
    yield company
    assert company.tip() == before


def rewritten(company, branch, **attack):
    """Push a branch whose pipeline attacks."""
    (company.folder / "azure-pipelines.yml").write_text(company.attack(**attack))
    company.commit(branch)


def name_mirror(company):
    file = company.folder / "mirrors.yaml"
    file.write_text(file.read_text().replace("mirrors: {}", "mirrors:\n  shop: {azure: {repository: shop}}"))


def said(company, build):
    return "\n".join(company.cloud.azure.run_log(build.id)["unmasked"])


def test_the_attack_works_for_whoever_was_permitted_so_that_it_shows_something(company):
    """The pipeline that is permitted, on the branch that is: whoever may merge can do this."""
    (company.folder / "azure-pipelines.yml").write_text(company.attack(signs_in=True))
    company.commit("main")
    before = company.tip()
    build = company.run_of(company.definition, "main")
    assert "pushed: 200" in said(company, build)
    assert company.tip() != before
    token = next(line.partition("]")[2] for line in said(company, build).splitlines() if "azureToken" in line)
    assert token not in "\n".join(
        company.azure.log(build, record.log_id) for record in company.azure.timeline(build) if record.log_id
    )


@pytest.mark.parametrize("signs_in", [True, False])
def test_an_unmerged_pull_request(harmless, signs_in):
    company = harmless
    branch = f"unmerged-{signs_in}"
    known = {build.id for build in company.azure.builds(company.definition)}
    rewritten(company, branch, signs_in=signs_in)
    company.azure.open_pull_request(company.azure.repository("mirrors"), branch, "main", "Innocent", "")
    (build,) = [b for b in company.azure.builds(company.definition) if b.id not in known and b.reason == "pullRequest"]
    build = wait_for(lambda: b if (b := company.azure.build(build.id)).done else None)
    assert build.result == "failed"
    assert ("Unauthorized" in said(company, build)) is not signs_in


@pytest.mark.parametrize("signs_in", [True, False])
def test_another_branch_of_the_repository(harmless, signs_in):
    rewritten(harmless, "other", signs_in=signs_in)
    assert harmless.run_of(harmless.definition, "other").result == "failed"


def test_another_pipeline_of_the_project(harmless):
    body = {key: value for key, value in harmless.definition.body.items() if key not in ("id", "revision")}
    other = harmless.azure.create_definition({**body, "name": "other"})
    assert harmless.run_of(other, "main").result == "failed"


def test_a_pipeline_of_another_repositorys_main(harmless):
    bare = harmless.cloud.create_azure_repository("contoso", "Platform", "theirs")
    sample.fill(bare, commits=1, branches=0, tags=0)
    blob = sample.git(bare, "hash-object", "-w", "--stdin", stdin=harmless.attack(signs_in=True).encode()).strip()
    tree = sample.git(bare, "mktree", stdin=f"100644 blob {blob}\tazure-pipelines.yml\n".encode()).strip()
    commit = sample.git(bare, "commit-tree", tree, "-m", "Ours").strip()
    sample.git(bare, "update-ref", "refs/heads/main", commit)
    body = {key: value for key, value in harmless.definition.body.items() if key not in ("id", "revision")}
    theirs = harmless.azure.repository("theirs")
    source = {"id": theirs.id, "name": "theirs", "type": "TfsGit", "defaultBranch": "refs/heads/main"}
    other = harmless.azure.create_definition({**body, "name": "theirs", "repository": source})
    assert harmless.run_of(other, "main").result == "failed"


def test_a_connection_of_another_kind_is_not_taken_for_it(harmless):
    rewritten(harmless, "kind", signs_in=True, kind="azureRM")
    assert harmless.run_of(harmless.definition, "kind").result == "failed"


def test_the_tip_of_the_branch_is_read_by_its_whole_name(tmp_path):
    """Git lists every ref that ends in the name, and whoever may push a branch chooses the rest of it."""
    source = tmp_path / "source.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(source)], check=True)
    sample.fill(source, commits=3, branches=0, tags=0)
    tip = sample.refs(source)["refs/heads/main"]
    sample.git(source, "update-ref", "refs/heads/aaa/refs/heads/main", f"{tip}~2")
    environment = {"PATH": os.environ["PATH"], "BUILD_SOURCEBRANCH": "refs/heads/main", "SYSTEM_ACCESSTOKEN": "x"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{TIP}\necho "$tip"'],
        cwd=tmp_path,
        env={**environment, "BUILD_REPOSITORY_URI": source.as_uri()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [tip]


def test_a_build_service_that_may_write_is_what_they_would_use(company):
    """Why docs/ci.md gives it *Read* only: with more, this very attack works from any branch."""
    company.cloud.azure.permit_identity(BUILD_SERVICE, "contoso", "Shop")
    rewritten(company, "any", signs_in=False)
    assert "pushed: 200" in said(company, company.run_of(company.definition, "any"))


@pytest.mark.parametrize(
    ("protection", "problem"),
    [
        ({"branches": None}, "Branch control of the service connection 'ci-in-azure' is missing"),
        ({"branches": ["refs/heads/main", "*"]}, "'ci-in-azure' lets * use it: a pull request could act as CI"),
        ({"is_open": True}, "every pipeline of the project may use the service connection 'ci-in-azure'"),
    ],
)
def test_a_connection_that_others_may_use_is_refused_before_anything_is_changed(company, protection, problem):
    company.add_azure_identity(**protection)
    bootstrap(company.cloud)
    name_mirror(company)
    before = company.stacks()
    token = company.cloud.entra_token
    said = company.run("codecommit-mirror", "up", "--all", "--job", check=False, AZURE_DEVOPS_ENTRA_TOKEN=token)
    assert problem in said
    assert company.stacks() == before


def test_a_project_that_lets_anyone_set_variables_is_refused(company):
    company.add_azure_identity()
    bootstrap(company.cloud)
    name_mirror(company)
    company.cloud.azure.set_project_setting("contoso", "Platform", "enforceSettableVar", False)
    before = company.stacks()
    token = company.cloud.entra_token
    said = company.run("codecommit-mirror", "up", "--all", "--job", check=False, AZURE_DEVOPS_ENTRA_TOKEN=token)
    company.cloud.azure.set_project_setting("contoso", "Platform", "enforceSettableVar", True)
    assert "is off in the project 'Platform'" in said
    assert company.stacks() == before


def test_a_command_that_writes_refuses_a_jobs_own_token_before_it_changes_anything(company):
    company.cloud.azure.permit_identity(BUILD_SERVICE, "contoso", "Shop")
    bootstrap(company.cloud)
    company.run("cdk", "deploy", "codecommit-mirror-identity", "--require-approval", "never", "--no-notices")
    name_mirror(company)
    before = company.stacks()
    token = company.cloud.job_token
    said = company.run("codecommit-mirror", "up", "--all", "--job", check=False, SYSTEM_ACCESSTOKEN=token)
    assert (
        "SYSTEM_ACCESSTOKEN is the token of a job, which also belongs to pull requests that nobody has merged" in said
    )
    assert company.stacks() == before
    planned = company.run("codecommit-mirror", "plan", "--all", SYSTEM_ACCESSTOKEN=token)
    assert "+ stack 'shop'" in planned


@pytest.mark.parametrize("more", [[], ["--no-azure"]], ids=["both sides", "AWS alone"])
def test_a_variable_of_a_run_is_no_option_of_cdk(company, tmp_path, more):
    bootstrap(company.cloud)
    name_mirror(company)
    loot = tmp_path / "loot"
    variables = {"CDK_APP": f"env > {loot}; exit 1", "AZURE_DEVOPS_ENTRA_TOKEN": company.cloud.entra_token}
    company.run("codecommit-mirror", "up", "--all", "--job", *more, check=None, **variables)
    assert not loot.exists()


def test_ci_is_not_run_where_variables_are_not_limited_whatever_its_mirrors_need(company):
    bootstrap(company.cloud)
    name_mirror(company)
    company.cloud.azure.set_project_setting("contoso", "Platform", "enforceSettableVar", False)
    token = {"AZURE_DEVOPS_ENTRA_TOKEN": company.cloud.entra_token}
    said = company.run("codecommit-mirror", "up", "--all", "--job", "--no-azure", check=False, **token)
    company.cloud.azure.set_project_setting("contoso", "Platform", "enforceSettableVar", True)
    assert "is off in the project 'Platform'" in said
