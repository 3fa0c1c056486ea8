"""The embedded cloud, started once for each worker, and a mirror of its own for each test."""

import contextlib
import functools
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template
from rich.console import Console

from codecommit_mirror.azure import pipeline
from codecommit_mirror.azure.rest.objects import Build, FileChange
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.config.azure_url import SERVER_VARIABLE
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import verification
from codecommit_mirror.operations.batches import Policy, Project, for_each_mirror
from codecommit_mirror.operations.context import MirrorContext
from codecommit_mirror.operations.down import down
from codecommit_mirror.operations.plan import STAGES
from codecommit_mirror.operations.rotate import rotate
from codecommit_mirror.operations.up import up
from codecommit_mirror.progress import Board
from codecommit_mirror.stacks import ReplicaStack
from localcloud import LocalCloud, sample
from localcloud.aws.codecommit.git_service import OtherRefs
from localcloud.azure.agent.execution import run_pipeline
from localcloud.azure.agent.run import Variable
from tests.program import program

from .engine import servers
from .engine.sides import NAMESPACES, Sides

CONFIRMED = {"confirm": lambda question, typed=None: None}
ROOT = Path(__file__).parents[2]


def documented_restore(folder: Path, names: list[str]) -> None:
    """Restore bundles with these names in a folder by the documented commands and script."""
    text = (ROOT / "docs" / "backup.md").read_text()
    script = re.search(r"```python\n(import gzip.*?)```", text, re.DOTALL)[1]
    (folder / "restore.py").write_text(script)
    commands = re.search(r"^(.*git init --bare .*\n)python3 restore\.py .*\n(git .*\ngit .*)$", text, re.MULTILINE)
    lines = [commands[1], f"python3 restore.py {' '.join(names)}", commands[2]]
    subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=folder, check=True, capture_output=True)


def build_wheel(folder: Path) -> Path:
    """Build this package, and return its wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


BOOTSTRAP_TEMPLATE = ROOT / "node_modules" / "aws-cdk" / "lib" / "api" / "bootstrap" / "bootstrap-template.yaml"


@pytest.fixture(scope="session")
def cloud():
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="session")
def stack_template():
    """The real stack's template, without what only the CDK CLI fills in; names are left to replace."""
    stack = ReplicaStack(cdk.App(), mirror=single_mirror("NAME", "https://dev.azure.com/contoso/Shop/_git/NAME"))
    document = Template.from_stack(stack).to_json()
    del document["Parameters"], document["Rules"]
    return json.dumps(document)


@pytest.fixture(scope="session")
def bootstrapped(cloud):
    """The cloud, bootstrapped for CDK."""
    bootstrap(cloud)
    return cloud


def bootstrap(cloud, policy="arn:aws:iam::aws:policy/AdministratorAccess"):
    """Do as ``cdk bootstrap`` does, with its own template and default policy, unless somebody has done it."""
    with contextlib.suppress(cloud.client("cloudformation").exceptions.AlreadyExistsException):
        create_stack(cloud, "CDKToolkit", BOOTSTRAP_TEMPLATE.read_text(), CloudFormationExecutionPolicies=policy)


def create_stack(cloud, name, template, *, role=None, **parameters):
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(
        **({"RoleARN": role} if role else {}),
        StackName=name,
        TemplateBody=template,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 0.2})


def commit_file(azure, repository, branch, tip, path, *, text, exists, comment):
    """Commit one file by the REST API, as somebody else does."""
    azure.commit_files(repository, branch, tip, [FileChange(path, text, exists)], comment)


def azure_environment(cloud):
    """The variables of who may do everything in Azure DevOps that a mirror needs."""
    return {
        "AZURE_DEVOPS_EXT_PAT": cloud.operator_token,
        "AZURE_GIT_USERNAME": "somebody",
        "AZURE_GIT_PASSWORD": cloud.personal_access_token,
        SERVER_VARIABLE: cloud.azure_url,
    }


def bring_up(context, said=None, *, stages=STAGES, cdk_context=(), **policy):
    """Bring one mirror up, as the command does, and return the row with the result.

    Args:
        context: the mirror's.
        said: receives the lines of the progress.
        stages: what to do.
        cdk_context: how the CDK app finds the mirror.
        policy: other than to confirm everything.
    """
    project = Project(context.folder, cdk_context)
    return _end(context, said, lambda it, board: up(it, board, project, Policy(**{**CONFIRMED, **policy}), stages))


def take_down(context, said=None, *, cdk_context=(), keep_stack=False, **policy):
    """Take one mirror down, as the command does, and return the row with the result."""
    chosen, project = Policy(**{**CONFIRMED, **policy}), Project(context.folder, cdk_context)
    return _end(context, said, lambda it, board: down(it, board, project, chosen, keep_stack=keep_stack))


def rotate_one(context, said=None, *, confirm=CONFIRMED["confirm"]):
    """Rotate one mirror's credential, as the command does, and return the row with the result."""
    work = functools.partial(for_each_mirror, policy=Policy())
    return _end(context, said, lambda it, board: work(it, board, lambda one, row: row.succeed(rotate(one, confirm))))


def _end(context, said, work):
    output, name = io.StringIO(), context.mirror.name
    try:
        with Board([name], console=Console(file=output)) as board:
            work({name: context}, board)
    finally:
        if said is not None:
            said.extend(line.strip() for line in output.getvalue().splitlines())
    row = board.rows[name]
    if row.failed:
        raise MirrorError(row.message)
    return row


class Rig:
    """One mirror on the embedded cloud: a source, a deployed stack, an issued credential, a rendered pipeline."""

    def __init__(self, cloud: LocalCloud, name: str, template: str) -> None:
        self.cloud, self.name = cloud, name
        self.source = cloud.create_azure_repository("contoso", "Shop", name)
        self.mirror = single_mirror(name, f"{cloud.azure_url}/contoso/Shop/_git/{name}")
        self.template = template.replace("NAME", name)
        create_stack(cloud, name, self.template)
        (stack,) = cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        self.replica = cloud.replica_path(name)
        self.user = self.outputs["PushUserName"]
        issued = cloud.client("iam").create_service_specific_credential(
            UserName=self.user, ServiceName="codecommit.amazonaws.com"
        )["ServiceSpecificCredential"]
        self.credential = issued
        self.variables = {
            "AZURE_REPO_URL": Variable(self.mirror.azure.clone_url),
            "AZURE_GIT_USERNAME": Variable("somebody", secret=True),
            "AZURE_GIT_PASSWORD": Variable(cloud.personal_access_token, secret=True),
            "AWS_REPO_URL": Variable(self.outputs["ReplicaUrl"]),
            "AWS_GIT_USERNAME": Variable(issued["ServiceUserName"], secret=True),
            "AWS_GIT_PASSWORD": Variable(issued["ServicePassword"], secret=True),
        }

    def run(
        self,
        *,
        path: str | None = None,
        mirror=None,
        stepping_down: bool = False,
        parameters: dict[str, str] | None = None,
        **variables: str,
    ):
        """Run the rendered pipeline on the embedded agent, with some secret variables replaced.

        With ``stepping_down`` the engine starts with its last resort, plain git.
        """
        chosen = {**self.variables, **{name: Variable(value, secret=True) for name, value in variables.items()}}
        text = pipeline.render(mirror or self.mirror)
        if stepping_down:
            text = with_another_engine(text, "MAX_OBJECTS_PER_PUSH = 1_000_000", "MAX_OBJECTS_PER_PUSH = 0")
        return run_pipeline(text, chosen, job_token=self.cloud.job_token, path=path, parameters=parameters)

    def context(self, mirror=None, **environment: str) -> MirrorContext:
        """Return a new context, as each process has."""
        return MirrorContext(mirror or self.mirror, {**azure_environment(self.cloud), **environment}, ROOT)

    def runs_are_done(self) -> list[Build]:
        """Wait until the agent has nothing left to do for this mirror; return its runs, the oldest first."""
        azure = self.context().azure
        definition = read_state(self.mirror, azure)[1].definition
        while not all(build.done for build in azure.builds(definition)):
            time.sleep(0.05)
        return sorted(azure.builds(definition), key=lambda build: build.id)

    def push(self, *refspecs: str, clone: Path) -> None:
        """Push from a clone to the source, over HTTPS, as a developer does."""
        endpoint = verification.source_endpoint(self.mirror, self.context().token)
        subprocess.run(
            ["git", "-C", str(clone), "push", "-q", endpoint.url, *refspecs],
            env=program.git_environment(os.environ, endpoint),
            check=True,
            capture_output=True,
        )

    def clone(self, folder: Path) -> Path:
        """Clone the source, with every object."""
        subprocess.run(["git", "clone", "-q", "--bare", str(self.source), str(folder)], check=True)
        return folder

    def assert_equal(self) -> None:
        """The replica has the source's refs and no others, and every object."""
        mirrored = program.by_original_name(sample.refs(self.replica), NAMESPACES)
        assert mirrored == sample.refs(self.source, *NAMESPACES)
        sample.git(self.replica, "fsck", "--connectivity-only")


def with_another_engine(text, old, new):
    """Return a pipeline's YAML whose engine is another one than its checksum says, which is not looked at."""
    assert old in text
    return re.sub(r"if hashlib\..*:\n", "if False:\n", text.replace(old, new))


counter = itertools.count()


@pytest.fixture(autouse=True)
def _this_cloud_and_no_other(cloud, monkeypatch):
    """Let what runs in this process reach the embedded cloud alone."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "SYSTEM_ACCESSTOKEN")):
            monkeypatch.delenv(name)
    for name, value in {**cloud.environment(), SERVER_VARIABLE: cloud.azure_url}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def rig(cloud, stack_template):
    """A mirror whose source is still empty."""
    return Rig(cloud, f"replica-{next(counter)}", stack_template)


@pytest.fixture
def command(cloud, tmp_path):
    """Run ``codecommit-mirror`` as a user does, against the embedded cloud."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [sys.executable, "-m", "codecommit_mirror", *arguments],
            cwd=tmp_path,
            env={**clean, **cloud.environment(), "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(params=OtherRefs, ids=lambda setting: setting.value)
def sides(request, tmp_path):
    """Both sides, with each way in which CodeCommit may take refs outside branches and tags."""
    return Sides(tmp_path, request.param)


@pytest.fixture
def strict_sides(tmp_path):
    """Both sides, with the strictest replica."""
    return Sides(tmp_path, OtherRefs.ABORTED)


@pytest.fixture
def git_sides(tmp_path):
    """Both sides, with git's own server as the replica."""
    sides = Sides(tmp_path, OtherRefs.ACCEPTED)
    sides.use(servers.git_replica(sides.replica))
    return sides
