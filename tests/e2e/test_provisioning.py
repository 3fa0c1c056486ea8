"""Provisioning from CI: the rendered pipeline on the embedded agent, and who may do what with which token."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.config.azure_url import SERVER_VARIABLE
from codecommit_mirror.config.mirror import AzureRepository
from localcloud import LocalCloud, sample
from localcloud.azure.service_connections import AUDIENCE, issuer, organization_id

from .conftest import ROOT, bootstrap, build_wheel

pytestmark = pytest.mark.long

CDK = ROOT / "node_modules" / ".bin" / "cdk"
DIFF, DEPLOY = "codecommit-mirror-diff", "codecommit-mirror-deploy"
CONNECTION, IDENTITY = "ci-in-azure", "an Entra identity"
MIRRORS = """\
defaults:
  account: "{account}"
  region: {region}
  azure: {{organization: contoso, project: Shop}}
ci:
  azure:
    {{organization: contoso, organization_id: {organization_id}, project: Platform, repository: mirrors,
      service_connection: ci-in-azure}}
mirrors:
"""


INSTALL = re.compile(r"python3 -m venv .*?--ignore-scripts", re.DOTALL)
"""What each job installs; test_deployment_repository.py does it."""
JSII = Path.home() / ".cache" / "aws" / "jsii"
"""Where jsii unpacks aws-cdk-lib, which takes three times as long as a synthesis."""
LINK = f'ln -s {ROOT}/.venv {ROOT}/node_modules .; mkdir -p {JSII} "$HOME/.cache/aws"; ln -s {JSII} "$HOME/.cache/aws"'


def linked(rendered: str) -> str:
    """Return a rendered pipeline whose jobs take what is installed here; with CI_INSTALLS they install the wheel."""
    return rendered if os.environ.get("CI_INSTALLS") else INSTALL.sub(LINK, rendered)


class Infrastructure:
    """A repository that holds mirrors.yaml, in a project of its own, and the account that it provisions."""

    def __init__(self, cloud: LocalCloud, folder) -> None:
        self.cloud, self.folder = cloud, folder
        self.bare = cloud.create_azure_repository("contoso", "Platform", "mirrors")
        azure = AzureRepository(
            organization="contoso", project="Platform", repository="mirrors", server=cloud.azure_url
        )
        self.azure = AzureDevOps(azure, AzureToken(cloud.operator_token, False, "test", cloud.azure_url))
        subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
        self.run("codecommit-mirror", "init", "--wheel", str(build_wheel(folder.parent / "dist")))

    def write(self, *mirrors: str) -> None:
        """Write mirrors.yaml: a name for each mirror, and what else is said of it."""
        head = MIRRORS.format(
            account=self.cloud.account, region=self.cloud.region, organization_id=organization_id("contoso")
        )
        entries = (mirror.partition(" ") for mirror in mirrors)
        lines = [f"  {name}: {{azure: {{repository: {name}}}, {options}}}\n" for name, _, options in entries]
        (self.folder / "mirrors.yaml").write_text(head + "".join(lines))

    def run(self, *command: str, check: bool | None = True, **environment: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        path = os.pathsep.join([os.path.dirname(sys.executable), str(CDK.parent), os.environ["PATH"]])
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={
                **clean,
                "PATH": path,
                **self.cloud.environment(),
                SERVER_VARIABLE: self.cloud.azure_url,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert check is None or (done.returncode == 0) is check, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def commit(self, branch: str) -> None:
        """Commit everything on a branch, and push it."""
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        for command in (
            ["checkout", "-q", "-B", branch],
            ["add", "-A"],
            [*who, "commit", "-q", "--allow-empty", "-m", f"On {branch}"],
        ):
            subprocess.run(["git", *command], cwd=self.folder, check=True)
        self.push(branch)

    def push(self, refspec: str) -> None:
        """Push as a developer does."""
        helper = "!f() { echo username=ada; echo password=$TOKEN; }; f"
        url = f"{self.cloud.azure_url}/contoso/Platform/_git/mirrors"
        push = ["git", "-c", f"credential.helper={helper}", "push", "-q", url, refspec]
        subprocess.run(push, cwd=self.folder, check=True, env={**os.environ, "TOKEN": self.cloud.operator_token})

    def create_pipeline(self):
        """Create the pipeline in Azure that runs the rendered YAML."""
        repository = self.azure.repository("mirrors")
        source = {"id": repository.id, "name": "mirrors", "type": "TfsGit", "defaultBranch": "refs/heads/main"}
        return self.azure.create_definition(
            {
                "name": "mirrors",
                "path": "\\",
                "type": "build",
                "process": {"type": 2, "yamlFilename": "azure-pipelines.yml"},
                "repository": source,
                "triggers": [{"triggerType": "continuousIntegration", "settingsSourceType": 2}],
            }
        )

    def add_azure_identity(self, branches=("refs/heads/main",), *, is_open=False) -> None:
        """Add the connection as whose identity CI does the Azure side, with the rights that docs/ci.md lists."""
        azure, names = self.cloud.azure, branches and list(branches)
        azure.add_service_connection("contoso", "Platform", CONNECTION, IDENTITY, names, "azureDevOps", is_open=is_open)
        azure.permit_identity(IDENTITY, "contoso", "Shop")
        azure.permit_identity(IDENTITY, "contoso", "Platform", ["vso.build", "vso.serviceendpoint"])

    def stacks(self) -> dict[str, str]:
        found = self.cloud.client("cloudformation").describe_stacks()["Stacks"]
        return {stack["StackName"]: stack["StackStatus"] for stack in found}


def wait_for(what, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def account():
    """A cloud of this module's own, bootstrapped."""
    with LocalCloud() as cloud:
        bootstrap(cloud)
        yield cloud


@pytest.fixture(scope="module")
def infrastructure(account, tmp_path_factory):
    """Roles deployed, and two mirrors, as an operator sets it up once."""
    made = Infrastructure(account, tmp_path_factory.mktemp("infrastructure"))
    made.write("Kept", "Gone", "Retained on_destroy: retain")
    made.run("cdk", "deploy", "--all", "--require-approval", "never", "--no-notices", "--concurrency", "4")
    rendered = made.run("codecommit-mirror", "ci", "render", "azure")
    (made.folder / "azure-pipelines.yml").write_text(linked(rendered))
    for name, branches in ((DIFF, None), (DEPLOY, ["refs/heads/main"])):
        role = f"arn:aws:iam::{account.account}:role/{name}"
        account.azure.add_service_connection("contoso", "Platform", name, role, branches)
    made.add_azure_identity()
    return made


@pytest.fixture(scope="module")
def pipeline(infrastructure):
    """The rendered pipeline in Azure, which also validates pull requests to main."""
    (infrastructure.folder / "README.md").write_text("Ours.\n")
    infrastructure.commit("main")
    definition = infrastructure.create_pipeline()
    for name in (DIFF, DEPLOY, CONNECTION):
        infrastructure.cloud.azure.permit_pipeline("contoso", "Platform", name, definition.id)
    infrastructure.cloud.azure.validate_pull_requests("contoso", "Platform", "mirrors", "main", definition.id)
    return definition


def the_run(infrastructure, definition, reason):
    (build,) = [b for b in infrastructure.azure.builds(definition) if b.reason == reason]
    return build


def log(infrastructure, build):
    return "\n".join(
        infrastructure.azure.log(build, record.log_id)
        for record in infrastructure.azure.timeline(build)
        if record.kind == "Task" and record.log_id
    )


def test_a_pull_request_is_shown_main_is_deployed_and_what_is_gone_waits_for_an_approval(infrastructure, pipeline):
    cloud, azure = infrastructure.cloud, infrastructure.azure
    before = infrastructure.stacks()
    hostile = "description: '##vso[task.complete result=Failed;]'"
    infrastructure.write(f"Kept {hostile}", "New", "Retained on_destroy: retain")
    infrastructure.commit("change")
    azure.open_pull_request(azure.repository("mirrors"), "change", "main", "Change", "")
    build = wait_for(lambda: b if (b := the_run(infrastructure, pipeline, "pullRequest")).done else None)
    assert build.result == "succeeded", log(infrastructure, build)
    shown = cloud.azure.run_log(build.id)
    assert shown["stages"] == {
        "diff": "succeeded",
        "deploy": "skipped",
        "verify": "skipped",
        "approve": "skipped",
        "teardown": "skipped",
    }
    (summary,) = shown["summaries"]
    assert f"\n  + stack 'New' in account {infrastructure.cloud.account}, {infrastructure.cloud.region}\n" in summary
    assert "named for the first time:\n  user or role: azure-devops-pipeline-New\n" in summary
    assert "for 'down --removed': Gone." in summary
    assert "\n  ~ AWS::CodeCommit::Repository Replica/Repository: RepositoryDescription\n" in summary
    assert "; 1 unchanged." in summary
    assert "##vso" not in summary
    assert "  + AWS::CodeCommit::Repository Replica/Repository" in summary
    assert infrastructure.stacks() == before

    infrastructure.push("change:main")
    question = wait_for(lambda: cloud.azure.questions())
    assert "Gone" in next(iter(question.values()))
    assert infrastructure.stacks()["New"] == "CREATE_COMPLETE"
    assert "Gone" in infrastructure.stacks()
    build = the_run(infrastructure, pipeline, "individualCI")
    summary = cloud.azure.run_log(build.id)["summaries"][0]
    assert "| New | needs a person | Deploy |" in summary
    assert "| Kept | succeeded | Deploy |" in summary

    # The branch moves on before somebody approves: what was asked then is not what is wanted now.
    (infrastructure.folder / "README.md").write_text("Ours, still.\n")
    infrastructure.commit("main")
    cloud.azure.decide(build.id, True)
    stale = wait_for(lambda: b if (b := azure.build(build.id)).done else None)
    assert stale.result == "failed"
    assert "since this was approved, so nothing is deleted" in log(infrastructure, stale)
    assert "Gone" in infrastructure.stacks()

    wait_for(lambda: cloud.azure.questions())
    build = max(azure.builds(pipeline), key=lambda one: one.id)
    assert build.id != stale.id
    cloud.azure.decide(build.id, True)
    build = wait_for(lambda: b if (b := azure.build(build.id)).done else None)
    assert build.result == "succeeded", log(infrastructure, build)
    shown = cloud.azure.run_log(build.id)
    assert shown["stages"] == {
        "diff": "skipped",
        "deploy": "succeeded",
        "verify": "skipped",
        "approve": "succeeded",
        "teardown": "succeeded",
    }
    assert "3 had nothing to do." in shown["summaries"][0]
    assert "| Gone | succeeded | Destroy the stack |" in shown["summaries"][1]
    assert "Gone" not in infrastructure.stacks()
    assert not cloud.replica_path("Gone").exists()


def as_role(cloud, name, *, subject=None, audience=AUDIENCE, of=None, seconds=600):
    """Return AWS credentials for a token, as the AWS toolkit gets them."""
    sts = boto3.client("sts", cloud.region, endpoint_url=cloud.aws_url, config=Config(signature_version=UNSIGNED))
    token = cloud.web_identity_token(
        of or issuer("contoso"), audience, subject or f"sc://contoso/Platform/{name}", seconds
    )
    role = f"arn:aws:iam::{cloud.account}:role/{name}"
    return sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="test", WebIdentityToken=token)[
        "Credentials"
    ]


def client(cloud, credentials, service):
    keys = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
    return boto3.Session(*keys, region_name=cloud.region).client(service, endpoint_url=cloud.aws_url)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"subject": f"sc://contoso/Platform/{DIFF}"}, "AccessDenied"),
        ({"subject": f"sc://contoso/Other/{DEPLOY}"}, "AccessDenied"),
        ({"audience": "sts.amazonaws.com"}, "InvalidIdentityToken"),
        ({"of": "https://vstoken.dev.azure.com/another"}, "InvalidIdentityToken"),
        ({"seconds": -1}, "InvalidIdentityToken"),
    ],
)
def test_only_the_service_connection_of_the_project_is_the_deploy_role(infrastructure, wrong, code):
    as_role(infrastructure.cloud, DEPLOY)
    with pytest.raises(ClientError) as refused:
        as_role(infrastructure.cloud, DEPLOY, **wrong)
    assert refused.value.response["Error"]["Code"] == code


def denied(call, *arguments, **options):
    with pytest.raises(ClientError) as refused:
        call(*arguments, **options)
    return refused.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")


def test_the_roles_may_do_what_they_are_for_and_nothing_else(infrastructure):
    cloud = infrastructure.cloud
    cloud.client("cloudformation").create_stack(
        StackName="Others",
        TemplateBody='{"Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}}}',
        Tags=[{"Key": "codecommit-mirror:provisioned-from", "Value": "dev.azure.com/contoso/Other/mirrors"}],
    )
    cloud.client("codecommit").create_repository(repositoryName="Untagged")
    for name in (DIFF, DEPLOY):
        credentials = as_role(cloud, name)
        cloudformation = client(cloud, credentials, "cloudformation")
        codecommit = client(cloud, credentials, "codecommit")
        assert len(cloudformation.describe_stacks()["Stacks"]) > 2
        cloudformation.get_template(StackName="Kept")
        assert denied(codecommit.get_repository, repositoryName="Untagged")
        if name == DEPLOY:
            codecommit.get_repository(repositoryName="Kept")
        else:
            assert denied(codecommit.get_repository, repositoryName="Kept")
        assert denied(client(cloud, credentials, "iam").list_users)
        assert denied(cloudformation.delete_stack, StackName="codecommit-mirror-ci")
        assert denied(cloudformation.delete_stack, StackName="CDKToolkit")
        assert denied(cloudformation.get_template, StackName="CDKToolkit")
        assert denied(cloudformation.delete_stack, StackName="Others")
        assert denied(cloudformation.create_stack, StackName="x", TemplateBody="{}")
        sts, bootstrap = (
            client(cloud, credentials, "sts"),
            f"arn:aws:iam::{cloud.account}:role/cdk-hnb659fds-{{}}-role-",
        )
        for kind in ("deploy", "file-publishing", "lookup", "image-publishing", "cfn-exec"):
            role = bootstrap.format(kind) + f"{cloud.account}-{cloud.region}"
            if name == DEPLOY and kind in ("deploy", "file-publishing"):
                sts.assume_role(RoleArn=role, RoleSessionName="test")
            else:
                assert denied(sts.assume_role, RoleArn=role, RoleSessionName="test")


def test_a_pull_request_that_rewrites_the_pipeline_gets_no_deploy_role(infrastructure, pipeline):
    text = (infrastructure.folder / "azure-pipelines.yml").read_text()
    hostile = INSTALL.sub(LINK, text).replace(f'awsCredentials: "{DIFF}"', f'awsCredentials: "{DEPLOY}"')
    assert hostile != text
    (infrastructure.folder / "azure-pipelines.yml").write_text(hostile)
    try:
        infrastructure.commit("hostile")
        azure = infrastructure.azure
        known = {build.id for build in azure.builds(pipeline)}
        azure.open_pull_request(azure.repository("mirrors"), "hostile", "main", "Hostile", "")
        (build,) = [b for b in azure.builds(pipeline) if b.id not in known]
        build = wait_for(lambda: b if (b := azure.build(build.id)).done else None)
    finally:
        (infrastructure.folder / "azure-pipelines.yml").write_text(text)
    assert build.result == "failed"
    assert infrastructure.cloud.azure.run_log(build.id)["stages"]["diff"] == "failed"
    assert log(infrastructure, build) == ""


def test_a_pipeline_that_was_not_permitted_gets_no_role(infrastructure, pipeline):
    """Whoever may make pipelines in the project cannot use the service connections by that."""
    azure = infrastructure.azure
    body = {key: value for key, value in pipeline.body.items() if key not in ("id", "revision")}
    other = azure.create_definition({**body, "name": "other"})
    build = azure.queue(other, "main")
    build = wait_for(lambda: b if (b := azure.build(build.id)).done else None)
    azure.delete_leases(azure.leases(other))
    azure.delete_definition(other)
    assert build.result == "failed"


def job(infrastructure, *arguments, **options):
    """Run a command as a job does."""
    return infrastructure.run("codecommit-mirror", *arguments, **options)


def up(infrastructure, **options):
    """Bring the file's mirrors up as a job does; return the results by mirror, and what is left to remove."""
    found = json.loads(job(infrastructure, "up", "--all", "--job", "--json", **options))
    return {one["mirror"]: one for one in found["mirrors"]}, found["removed"]


def planned(infrastructure):
    """What would change: the actions by mirror."""
    found = json.loads(job(infrastructure, "plan", "--all", "--no-azure", "--json"))
    assert found["failed"] == {}
    return {action["mirror"] for action in found["actions"]}


def remove(infrastructure, *names, check=True, options=()):
    """Take down what was approved, as a job does."""
    approved = infrastructure.folder.parent / "approved.json"
    approved.write_text(json.dumps({"format": 1, "removed": names}))
    arguments = ("down", "--removed", "--approved", str(approved), "--job", *options)
    return job(infrastructure, *arguments, check=check)


def test_the_commands_are_idempotent_and_touch_nothing_of_others(infrastructure):
    cloud = infrastructure.cloud
    cloudformation = cloud.client("cloudformation")
    tag = [{"Key": "codecommit-mirror:provisioned-from", "Value": "dev.azure.com/contoso/Other/mirrors"}]
    empty = '{"Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}}}'
    for name in ("Theirs", "taken"):
        cloudformation.create_stack(StackName=name, TemplateBody=empty, Tags=tag)
    owner = [{**tag[0], "Value": "dev.azure.com/contoso/Platform/mirrors"}]
    cloudformation.create_stack(StackName="Unapproved", TemplateBody=empty, Tags=owner)
    other = cloud.client("cloudformation", "us-west-2")
    other.create_stack(StackName="Far", TemplateBody=empty, Tags=owner)
    infrastructure.write("Kept", "Another", "Elsewhere account: '999999999999'", "Retained on_destroy: retain")
    job(infrastructure, "up", "--all", "--job", check=False)
    again, removed = up(infrastructure)
    assert {name: one["message"] for name, one in again.items()} == dict.fromkeys(
        ("Another", "Kept", "Retained"), "nothing to do"
    )
    # Another region's, although nothing of the file is there any more; and never somebody else's.
    assert "Far" in removed
    assert "Theirs" not in removed
    infrastructure.write("Kept", "Another", "Retained on_destroy: retain", "taken")
    said = job(infrastructure, "up", "--all", "--job", check=False)
    assert "taken: FAILED: the stack 'taken' in region" in said
    assert "does not belong to the mirror 'taken' and is left alone" in said
    assert cloudformation.describe_stacks(StackName="taken")["Stacks"][0]["Tags"] == tag
    infrastructure.write("Kept", "Another", "Retained on_destroy: retain")
    assert "there is no terminal to ask on" in job(infrastructure, "down", "--removed", check=False)
    assert "give --removed and --approved FILE" in job(infrastructure, "down", "Kept", "--job", check=False)
    late = remove(infrastructure, "Far", check=False, options=("--minutes", "0"))
    assert "skipped: --minutes ran out" in late
    said = remove(infrastructure, "Kept", "Theirs", "Far", check=None)
    assert "deleted; 'down Far --azure-repo-url URL' deletes its pipeline, if it has one" in said
    assert "Unapproved is not in" in said
    assert {"Kept", "Theirs", "Unapproved"} <= set(infrastructure.stacks())
    assert "Unapproved is not in" in remove(infrastructure, "Far", check=None)


def test_a_mirror_without_a_region_goes_to_the_one_of_the_section(infrastructure):
    infrastructure.write("Kept", "Here", "Retained on_destroy: retain")
    job(infrastructure, "up", "--all", "--job", AWS_REGION="us-west-2", AWS_DEFAULT_REGION="us-west-2", check=None)
    assert "Here" in infrastructure.stacks()
    assert planned(infrastructure) == set()


def test_a_changed_mirror_alone_is_deployed_and_a_kept_replica_stays(infrastructure):
    infrastructure.write("Kept description: changed", "Retained on_destroy: retain")
    assert planned(infrastructure) == {"Kept"}
    done, _ = up(infrastructure)
    assert (done["Kept"]["step"], done["Retained"]["message"]) == ("Deploy", "nothing to do")
    assert planned(infrastructure) == set()
    infrastructure.write("Kept description: changed")
    remove(infrastructure, "Retained")
    assert "Retained" not in infrastructure.stacks()
    assert infrastructure.cloud.replica_path("Retained").exists()


def test_a_deployment_that_fails_says_what_is_done_and_what_is_not(infrastructure):
    infrastructure.cloud.client("iam").create_user(UserName="taken")
    infrastructure.write("Kept description: again", "Fresh", "Broken user_name: taken")
    # Somebody else's deployment of it never ends.
    infrastructure.cloud.set_stack_status("Kept", "UPDATE_IN_PROGRESS")
    try:
        said = job(infrastructure, "up", "--all", "--job", check=False)
    finally:
        infrastructure.cloud.set_stack_status("Kept", "UPDATE_COMPLETE")
    assert "Broken: FAILED: there is already an IAM user 'taken'" in said
    assert "Kept: left: CloudFormation is still working on its stack (UPDATE_IN_PROGRESS)" in said
    assert "Traceback" not in said
    assert "Fresh" in infrastructure.stacks()
    said = job(infrastructure, "plan", "--all", "--no-azure", "--json", check=False)
    found, _ = json.JSONDecoder().raw_decode(said)
    assert {action["mirror"] for action in found["actions"]} == {"Kept"}
    assert "there is already an IAM user 'taken'" in found["failed"]["Broken"]


def test_protection_is_not_taken_off_for_a_removal(infrastructure):
    infrastructure.write("Kept", "Protected termination_protection: true")
    job(infrastructure, "up", "--all", "--job", check=None)
    infrastructure.write("Kept")
    assert "has termination protection and is not deleted" in remove(infrastructure, "Protected", check=False)
    assert "Protected" in infrastructure.stacks()


def test_neither_the_source_nor_a_log_of_the_pipeline_holds_a_secret(infrastructure, pipeline):
    texts = [sample.git(infrastructure.bare, "log", "-p", "--all")]
    for build in infrastructure.azure.builds(pipeline):
        run = infrastructure.cloud.azure.run_log(build.id)
        texts += [*run["unmasked"], *run["summaries"]]
    text = "\n".join(texts)
    assert "Compare with what is deployed" in text
    for secret in (infrastructure.cloud.environment()["AWS_SECRET_ACCESS_KEY"], infrastructure.cloud.operator_token):
        assert secret not in text
    # Tokens of OpenID Connect, and the keys that they are exchanged for.
    assert not re.search(r"\beyJ[\w-]+\.|\bASIA[A-Z0-9]{8,}|AUTHORIZATION: bearer [^$]", text)
