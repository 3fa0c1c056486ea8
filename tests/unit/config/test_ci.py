"""Provisioning from CI: the section of mirrors.yaml, the plan, and what is rendered."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from codecommit_mirror.cli import cli
from codecommit_mirror.config.ci import Ci, load_sections
from codecommit_mirror.config.load import load
from codecommit_mirror.config.mirrors_file import read
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.rendering.ci import render

CONTRACTS = Path(__file__).parents[2] / "contracts"
AZURE_SCHEMA = json.loads((CONTRACTS / "azure-pipelines-schema.json").read_text("utf-8-sig"))
DIFF_ROLE, DEPLOY_ROLE = "codecommit-mirror-diff", "codecommit-mirror-deploy"
ORGANIZATION_ID = "89abcdef-0123-4567-89ab-cdef01234567"
AZURE = {"organization": "contoso", "organization_id": ORGANIZATION_ID, "project": "Shop", "repository": "mirrors"}
ACCOUNT = {"account": "111122223333", "region": "eu-west-1"}


def azure(**changes):
    return Ci.model_validate({**ACCOUNT, "azure": {**AZURE, **changes}})


def github(repository="contoso/mirrors", **changes):
    return Ci.model_validate({**ACCOUNT, "github": {"repository": repository}, **changes})


def test_azures_jobs_are_recognised_by_their_service_connection():
    trust = azure().trust
    assert trust.issuer == f"https://vstoken.dev.azure.com/{ORGANIZATION_ID}"
    assert trust.audience == "api://AzureADTokenExchange"
    assert trust.diff == ("sc://contoso/Shop/codecommit-mirror-diff",)
    assert trust.deploy == ("sc://contoso/Shop/codecommit-mirror-deploy",)


def test_what_azures_tokens_say_can_be_given():
    given = {"issuer": "https://login.microsoftonline.com/t/v2.0", "audience": "api://other"}
    trust = azure(organization_id=None, **given, diff_subject="/eid1/a", deploy_subject="/b").trust
    assert vars(trust) == {**given, "diff": ("/eid1/a",), "deploy": ("/b",)}


def test_two_files_of_an_account_are_told_apart_by_their_names():
    section = github(name="team-a")
    assert section.owner == "github.com/contoso/mirrors team-a"
    assert (section.stack_name, section.diff_role) == ("codecommit-mirror-ci-team-a", "codecommit-mirror-diff-team-a")
    text = render(section, "github", "team-a.yaml")
    assert "role/codecommit-mirror-deploy-team-a" in text
    assert "environment: codecommit-mirror-teardown-team-a" in text


def validator(schema):
    """Return a validator of YAML that was loaded without types."""
    draft = jsonschema.validators.validator_for(schema)
    types = draft.TYPE_CHECKER.redefine("boolean", lambda _, value: value in ("true", "false"))
    return jsonschema.validators.extend(draft, type_checker=types)(schema)


def test_githubs_jobs_are_recognised_by_their_repository_and_branch():
    trust = github(branch="release").trust
    assert (trust.issuer, trust.audience) == ("https://token.actions.githubusercontent.com", "sts.amazonaws.com")
    assert trust.diff == ("repo:contoso/mirrors:pull_request",)
    assert trust.deploy == ("repo:contoso/mirrors:ref:refs/heads/release",)
    assert github("contoso@12/mirrors@34").trust.diff == ("repo:contoso@12/mirrors@34:pull_request",)


def test_the_owner_is_the_repository_whatever_its_ids():
    assert github("contoso@12/mirrors@34").owner == github().owner == "github.com/contoso/mirrors"
    assert azure(project="Café & Co".replace("&", "and")).owner == "dev.azure.com/contoso/Café and Co/mirrors"
    assert azure(project="a (b)").owner == "dev.azure.com/contoso/a -b-/mirrors"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("ci: {}", None),
        ("ci: {branch: main}", "line 2: ci: ci needs either github or azure"),
        ("ci: {nam: x, github: {repository: o/r}}", "line 2: ci: nam is not a known key; did you mean 'name'?"),
        ("ci: {zzz: x, github: {repository: o/r}}", "(known: account, region, branch, name, github,"),
        ("ci: {github: {repository: o/r@1}}", "line 2: ci: github.repository: 'o/r@1' is not a GitHub repository"),
        ("ci: {github: {repository: o/r.git}}", "ci: github.repository: 'o/r.git' is not a GitHub repository"),
        ("ci: {github: {repository: r}}", "line 2: ci: github.repository: 'r' is not a GitHub repository"),
        ("ci: {github: {repository: 'o/*'}}", "line 2: ci: github.repository: 'o/*' is not a GitHub repository"),
        ("ci: {github: {repository: o/r}, role: x}", "line 2: ci: role is not a known key; remove it or correct"),
        ("ci: {github: {repository: o/r, x: y}}", "line 2: ci: github.x is not a known key; remove it or correct its "
         "spelling (known: repository)."),
        ("ci: {azure: {organization: o, project: p, repository: r}}", "azure: needs organization_id; 'codecommit"),
        ("ci: {azure: {organization: o, organization_id: o, project: p, repository: r}}", "is not the id of an"),
        ("ci: {account: '1', github: {repository: o/r}}", "line 2: ci: account: '1' is not an AWS account id"),
        ("ci: [github]", "line 2: 'ci' is not a mapping"),
        (f"ci: {{azure: {{organization: o, organization_id: {ORGANIZATION_ID}, project: Łódź, repository: r}}}}",
         "ci: azure.project: 'Łódź' is not a name that an IAM policy accepts"),
    ],
)  # fmt: skip
def test_each_mistake_of_the_section_is_one_sentence(tmp_path, section, expected):
    path = tmp_path / "mirrors.yaml"
    text = f"defaults: {{account: '111122223333', region: eu-west-1}}\n{section}\nmirrors: {{}}\n"
    path.write_text(text, encoding="utf-8")
    if expected is None:
        assert load(path).cis == ()
        return
    with pytest.raises(MirrorError) as caught:
        load(path)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_both_services_are_one_too_many(tmp_path):
    with pytest.raises(ValueError, match="ci has both github and azure; keep the one"):
        Ci.model_validate({**ACCOUNT, "github": {"repository": "o/r"}, "azure": AZURE})


def test_mirrors_are_where_ci_provisions_them_for_people_too(tmp_path):
    path = tmp_path / "mirrors.yaml"
    azure = "azure: {organization: o, project: p, repository: "
    path.write_text(
        "ci: {account: '111122223333', region: eu-west-1, github: {repository: o/r}}\n"
        f"mirrors:\n  a: {{{azure}a}}}}\n  b: {{{azure}b}}, region: us-east-1, account: '999999999999'}}\n"
    )
    assert [(m.account, m.region) for m in load(path).mirrors] == [
        ("111122223333", "eu-west-1"),
        ("999999999999", "us-east-1"),
    ]


def test_without_an_account_the_section_says_so(tmp_path):
    path = tmp_path / "mirrors.yaml"
    path.write_text("ci: {github: {repository: o/r}}\n")
    with pytest.raises(MirrorError, match="account is missing; add it here or under defaults"):
        load_sections(read(path))


def test_no_mirror_takes_the_name_of_the_roles_stack(tmp_path):
    path = tmp_path / "mirrors.yaml"
    azure = "azure: {organization: o, project: p, repository: r}"
    for name in ("codecommit.mirror.ci", "codecommit-mirror-ci-team-a"):
        path.write_text(f"mirrors:\n  {name}: {{{azure}}}\n")
        with pytest.raises(MirrorError, match="its stack would have the same name as CI's own stack; rename"):
            load(path)
    path.write_text(f"mirrors:\n  codecommit-mirror-cities: {{{azure}}}\n")
    assert len(load(path).mirrors) == 1


def scripts(document):
    """Every shell script of a rendered pipeline."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("run", "bash", "inlineScript") and isinstance(value, str):
                yield value
            else:
                yield from scripts(value)
    elif isinstance(document, list):
        for item in document:
            yield from scripts(item)


RENDERED = {
    "azure": render(azure(service_connection="ci"), "azure", "config/mirrors.yaml", drill=True),
    "github": render(github(), "github", "config/mirrors.yaml", drill=True),
}


def as_bash(step):
    """The same script in a step that the schema knows; it knows no task of an extension."""
    rest = {key: value for key, value in step.items() if key not in ("task", "inputs")}
    return {"bash": step["inputs"]["inlineScript"], **rest}


def test_only_with_snapshots_is_there_a_drill():
    for service, section in (("azure", azure()), ("github", github())):
        text = render(section, service, "config/mirrors.yaml")
        assert "drill" not in text
        assert "cron" not in text
        assert "restore --drill --all --job" in RENDERED[service]


def test_azures_pipeline_is_valid_by_its_schema():
    document = yaml.load(RENDERED["azure"], Loader=yaml.BaseLoader)
    for job in (job for stage in document["stages"] for job in stage["jobs"]):
        # The schema is older than the third version of the Azure CLI's task.
        unknown = ("AWSShellScript@1", "AzureCLI@3")
        job["steps"] = [as_bash(step) if step.get("task") in unknown else step for step in job["steps"]]
    by_schema = validator(AZURE_SCHEMA)
    by_schema.validate(document)
    document["stages"][0]["dependOn"] = []
    with pytest.raises(jsonschema.ValidationError):
        by_schema.validate(document)


def test_githubs_workflow_is_valid_by_its_schema(tmp_path):
    path = tmp_path / "mirrors.yml"
    check = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    path.write_text(RENDERED["github"])
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    path.write_text(RENDERED["github"].replace("runs-on", "run-on"))
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("service", RENDERED)
def test_beside_a_role_only_hashed_wheels_are_installed(service):
    installs = [line for line in RENDERED[service].splitlines() if "pip install" in line]
    assert len(installs) == 5
    assert all("--require-hashes --only-binary :all: -r requirements" in line for line in installs)


@pytest.mark.parametrize("service", RENDERED)
def test_its_scripts_are_shell_and_call_commands_that_there_are(service):
    found = list(scripts(yaml.safe_load(RENDERED[service])))
    assert len(found) > 5
    for script in found:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0, script
        for line in script.splitlines():
            called = re.search(r"(?:^|[ /])codecommit-mirror (.*)", line)
            if called:
                words = called[1].replace('"${names[@]}"', "One").replace('"${options[@]}"', "--no-azure")
                parse(cli, shlex.split(words.split(" > ")[0]))


def parse(command, words, parent=None):
    """Parse a command line as click does, without running it."""
    if isinstance(command, click.Group):
        context = click.Context(command, parent=parent, **command.context_settings)
        parse(command.get_command(context, words[0]), words[1:], context)
    else:
        command.make_context(command.name, list(words), parent=parent)


@pytest.mark.parametrize("service", RENDERED)
def test_no_key_and_no_secret_is_asked_for(service):
    text = RENDERED[service].lower()
    assert not re.search(r"aws_access_key|aws_secret|password", text)
    assert "secrets." not in text


def steps(stage):
    return [step for job in stage["jobs"] for step in job["steps"]]


def test_azures_roles_are_for_what_they_are_for():
    stages = {stage["stage"]: stage for stage in yaml.safe_load(RENDERED["azure"])["stages"]}
    used = {
        name: {step["inputs"]["awsCredentials"] for step in steps(stage) if step.get("task") == "AWSShellScript@1"}
        for name, stage in stages.items()
    }
    assert used == {
        "diff": {DIFF_ROLE},
        "deploy": {DEPLOY_ROLE},
        "verify": {DEPLOY_ROLE},
        "approve": set(),
        "teardown": {DEPLOY_ROLE},
        "drill": {DEPLOY_ROLE},
    }
    (approve,) = stages["approve"]["jobs"]
    assert approve["pool"] == "server"
    assert approve["steps"][0]["task"] == "ManualValidation@1"
    assert "approve" in stages["teardown"]["dependsOn"]
    assert stages["teardown"]["condition"] == "and(not(canceled()), eq(dependencies.approve.result, 'Succeeded'))"


def test_githubs_teardown_waits_for_reviewers_and_has_no_token_before():
    jobs = yaml.safe_load(RENDERED["github"])["jobs"]
    assert jobs["approve"]["environment"] == "codecommit-mirror-teardown"
    assert jobs["approve"]["permissions"] == {}
    assert "approve" in jobs["teardown"]["needs"]
    assert "reviewers" in jobs["approve"]["needs"]
    assert jobs["approve"]["if"] == "${{ !cancelled() && needs.reviewers.result == 'success' }}"
    assert jobs["teardown"]["if"] == "${{ !cancelled() && needs.approve.result == 'success' }}"
    roles = {
        name: step["with"]["role-to-assume"].rpartition("/")[2]
        for name, job in jobs.items()
        for step in job["steps"]
        if "role-to-assume" in step.get("with", {})
    }
    assert roles == {"diff": DIFF_ROLE, **dict.fromkeys(("deploy", "verify", "teardown", "drill"), DEPLOY_ROLE)}


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1", "eu-west-1"])
def test_roles_are_of_the_regions_partition(region):
    partition = {"cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov"}.get(region, "aws")
    assert github(region=region).role_arn("r") == f"arn:{partition}:iam::111122223333:role/r"


def test_approvers_are_named_where_they_are_given():
    def inputs(**changes):
        stages = yaml.safe_load(render(azure(**changes), "azure", "m.yaml"))["stages"]
        (approve,) = [stage for stage in stages if stage["stage"] == "approve"]
        return approve["jobs"][0]["steps"][0]["inputs"]

    assert inputs()["notifyUsers"] == ""
    assert "approvers" not in inputs()
    given = inputs(approvers="ada@example.com,[Shop]\\Leads")
    assert given["approvers"] == given["notifyUsers"] == "ada@example.com,[Shop]\\Leads"


def test_a_branch_that_is_quoted_stays_one_text():
    section = azure().model_copy(update={"branch": "it's"})
    (stage,) = [s for s in yaml.safe_load(render(section, "azure", "m.yaml"))["stages"] if s["stage"] == "deploy"]
    assert stage["condition"].endswith("'refs/heads/it''s'))")


def test_ci_runs_in_a_pool_of_its_own():
    own = {"name": "On premises", "demands": ["Agent.OS -equals Linux"]}
    section = azure(pool=own, pull_request_pool={"name": "Thrown away"})
    document = yaml.safe_load(render(section, "azure", "mirrors.yaml", drill=True))
    pools = {stage["stage"]: job["pool"] for stage in document["stages"] for job in stage["jobs"]}
    assert pools.pop("diff") == {"name": "Thrown away"}
    assert {str(pool) for pool in pools.values() if pool != "server"} == {str(own)}


@pytest.mark.parametrize("key", ["pool", "pull_request_pool"])
def test_pull_requests_do_not_come_to_cis_own_agents_unless_somebody_says_so(key):
    with pytest.raises(ValidationError, match="pool and pull_request_pool go together"):
        azure(**{key: {"name": "Default"}})
