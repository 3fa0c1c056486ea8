"""The whole journey on the embedded cloud, step by step: up, pushes that start runs, status, rotate, verify, down."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from codecommit_mirror import engine_api
from codecommit_mirror.aws import cdk
from codecommit_mirror.azure.rest.client import AzureDevOps
from codecommit_mirror.azure.rest.token import AzureToken
from codecommit_mirror.azure.state import read_state
from codecommit_mirror.config.azure_url import SERVER_VARIABLE
from codecommit_mirror.config.load import single_mirror
from codecommit_mirror.config.mirror import DEFAULT_PIPELINE_PATH
from codecommit_mirror.errors import MirrorError
from codecommit_mirror.operations import verification
from codecommit_mirror.progress import Board, Row
from localcloud import LocalCloud, sample

_ROOT = Path(__file__).parent.parent
_NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")
_REPLICA = "MyRepoReplica"
_MIRRORS = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
guard: {{email: platform@contoso.example}}
mirrors:
  {replica}:
    azure: {{repository: MyRepo}}
"""
_GUARD = "codecommit-mirror-guard"


def run_demo(source: str | None, *, keep: bool, repositories: int = 1) -> None:
    """Run the demo; raise MirrorError when a step does not do what it should.

    Args:
        source: a Git repository to mirror instead of the sample.
        keep: whether the cloud stays when the demo is over.
        repositories: how many repositories it then has in Azure DevOps, each with an entry in mirrors.yaml.
    """
    cli = cdk.find_cli(_ROOT)
    board = Board(["demo"], console=Console(highlight=False, soft_wrap=True), live=False)
    steps = board.rows["demo"]
    with LocalCloud() as cloud:
        steps.say(f"Embedded cloud: AWS at {cloud.aws_url}, Azure DevOps at {cloud.azure_url}. No account is used.")
        demo = _Demo(cloud, steps, cli)
        branch = demo.fill_source(source)
        demo.bring_up()
        demo.work(branch)
        demo.delete_a_branch()
        demo.look_after()
        demo.wipe_and_restore()
        if not keep:
            demo.take_down()
        click.secho("\nSummary", bold=True)
        for title, seconds in steps.done:
            click.echo(f"{seconds:8.1f} s  {title}")
        click.echo(f"{board.seconds():8.1f} s  in total")
        for fact in demo.facts:
            click.echo(f"  - {fact}")
        if keep:
            _keep(cloud, demo, [f"MyRepo{number}" for number in range(2, repositories + 1)])


class _Demo:
    def __init__(self, cloud: LocalCloud, steps: Row, cdk_cli: str) -> None:
        self.cloud, self._steps, self._cdk_cli = cloud, steps, cdk_cli
        self.facts: list[str] = []
        self.source = cloud.create_azure_repository("contoso", "Shop", "MyRepo")
        self._config = cloud.root / "mirrors.yaml"
        self._config.write_text(_MIRRORS.format(server=cloud.azure_url, replica=_REPLICA))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AZURE_", "SYSTEM_"))},
            **cloud.environment(),
            "CODECOMMIT_MIRROR_CONFIG": str(self._config),
            SERVER_VARIABLE: cloud.azure_url,
            "AZURE_DEVOPS_EXT_PAT": cloud.operator_token,
            "AZURE_GIT_USERNAME": "git-user",
            "AZURE_GIT_PASSWORD": cloud.personal_access_token,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(Path(cdk_cli).parent), os.environ["PATH"]]),
        }
        token = AzureToken(cloud.operator_token, False, "AZURE_DEVOPS_EXT_PAT", cloud.azure_url)
        self._mirror = single_mirror(_REPLICA, f"{cloud.azure_url}/contoso/Shop/_git/MyRepo")
        self._azure = AzureDevOps(self._mirror.azure, token)
        self._push_url = verification.source_endpoint(self._mirror, token)
        self._before: dict[str, list[str]] = {}
        self._runs_seen: set[int] = set()

    def fill_source(self, source: str | None) -> str:
        """Put history into the source and return its default branch."""
        with self._steps.step(
            "Source in Azure Repos: " + re.sub(r"://[^/@]*@", "://", source or "the built-in sample")
        ):
            if source is None:
                sample.fill(self.source, extra_branches=sample.HOSTILE_BRANCHES)
            else:
                _clone(source, self.source)
                _refuse_pipeline_of_its_own(self.source)
            branch = sample.git(self.source, "symbolic-ref", "--short", "HEAD").strip()
            tip = sample.git(self.source, "rev-parse", f"refs/heads/{branch}").strip()
            taken = {part for name in sample.refs(self.source) for part in name.split("/")}
            numbered = (f"mirror-demo-{number}" for number in itertools.count(1))
            self._prefix = next(
                name for name in ("mirror-demo", *itertools.islice(numbered, 1000)) if name not in taken
            )
            for name in (f"{self._prefix}/to-be-deleted", f"{self._prefix}/to-be-rewritten"):
                sample.git(self.source, "update-ref", f"refs/heads/{name}", tip)
                sample.commit(self.source, name, f"Commit on {name}")
            commits = int(sample.git(self.source, "rev-list", "--all", "--count"))
            refs = sample.refs(self.source)
            kinds = ", ".join(f"{sum(r.startswith(n) for r in refs):,} in {n}" for n in (*_NAMESPACES, "refs/pull/"))
            self._steps.say(f"{commits:,} commits; refs: {kinds}")
            self.facts.append(f"source: {commits:,} commits, {len(refs):,} refs ({kinds})")
        return branch

    def bring_up(self) -> None:
        """Bootstrap the account, deploy the guard, then bring the mirror up."""
        with self._steps.step("cdk bootstrap (once for each account and region)"):
            target = f"aws://{self.cloud.account}/{self.cloud.region}"
            options = ["-c", f"config={self._config}", "--output", str(self.cloud.root / "cdk.out"), "--no-notices"]
            self._run([self._cdk_cli, "bootstrap", target, *options], tell=False)
        with self._steps.step(f"cdk deploy {_GUARD} (once for each account and region)"):
            self._run([self._cdk_cli, "deploy", _GUARD, "--require-approval", "never", *options], tell=False)
            self._steps.say("a bucket with Object Lock, and a function that watches every replica")
        self._before = self.inventory()
        self._command("up", _REPLICA, "--yes")
        for kind, names in self.inventory().items():
            for name in sorted(set(names) - set(self._before[kind])):
                self._steps.say(f"created {kind} {name}")
        self._wait_for_runs()
        self._compare()

    def work(self, branch: str) -> None:
        """Push to the source what developers push in a day, and see runs start by themselves."""
        with self._steps.step("Developers push to the source, over HTTPS"):
            clone = self.cloud.root / "developer.git"
            subprocess.run(
                ["git", "clone", "-q", "--bare", "--shared", str(self.source), str(clone)],
                check=True,
                capture_output=True,
            )
            tip = sample.commit(clone, branch, "A new commit")
            sample.git(clone, "update-ref", f"refs/heads/{self._prefix}/new-branch", tip)
            sample.git(clone, "tag", "-a", f"{self._prefix}-tag", "-m", "A tag", tip)
            rewritten = f"{self._prefix}/to-be-rewritten"
            sample.commit(clone, rewritten, "History rewritten", parent=f"refs/heads/{branch}~1")
            pushed = (branch, f"{self._prefix}/new-branch", f"refs/tags/{self._prefix}-tag", f"+{rewritten}")
            self._push(clone, *pushed)
            for change in (
                f"a new commit on {branch}",
                f"a new branch, {self._prefix}/new-branch",
                f"a new tag, {self._prefix}-tag",
                f"a force-push to {rewritten}",
            ):
                self._steps.say(change)
        with self._steps.step("The pushes have started runs of the pipeline"):
            self._wait_for_runs()
            self._compare()

    def delete_a_branch(self) -> None:
        """Delete a branch, which starts no run, and let the schedule catch up."""
        with self._steps.step("A deleted branch starts no run; the schedule catches up"):
            deleted = f"{self._prefix}/to-be-deleted"
            self._push(self.cloud.root / "developer.git", f":refs/heads/{deleted}")
            self._steps.say(f"a deleted branch, {deleted}")
        self._command("status", "--max-lag", "60")
        with self._steps.step("The scheduled time arrives"):
            self.cloud.azure.fire_schedules()
            self._wait_for_runs()
            self._compare()

    def look_after(self) -> None:
        """Rotate the credential, and look at the mirror from outside."""
        self._command("rotate", _REPLICA)
        self._wait_for_runs()
        self._command("verify", _REPLICA)
        self._command("status")

    def wipe_and_restore(self) -> None:
        """Delete every branch with the pipeline's password, see the guard's e-mail, and restore a snapshot."""
        self.cloud.aws.confirm_subscriptions()
        with self._steps.step("The guard takes a snapshot, as it does every day"):
            self._take_snapshot()
        with self._steps.step("Somebody with the pipeline's password deletes every branch"):
            known = len(self.cloud.mail())
            self._wipe()
            while len(self.cloud.mail()) == known:
                time.sleep(0.1)
            mail = self.cloud.mail()[known]
            self._steps.say(f"e-mail to {mail['to']}: {mail['subject']}")
            for line in mail["body"].splitlines()[1:12]:
                self._steps.say(f"  {line}".rstrip())
        folder = self.cloud.root / "restored.git"
        self._command("restore", _REPLICA, "--from", "snapshots", "--to", str(folder))
        with self._steps.step("The restored repository and the source, ref by ref"):
            source, restored = sample.refs(self.source, *_NAMESPACES), sample.refs(folder)
            if source != restored:
                raise MirrorError("the restored repository differs from the source.")
            self._steps.say(f"{len(source):,} refs are equal")
            self.facts.append(f"after the wipe, a snapshot gave back all {len(source):,} refs")
        with self._steps.step("The next run repairs the replica"):
            self.cloud.azure.fire_schedules()
            self._wait_for_runs()
            self._compare()

    def _take_snapshot(self) -> None:
        arn = f"arn:aws:codecommit:{self.cloud.region}:{self.cloud.account}:{_REPLICA}"
        payload = json.dumps({"task": "snapshot", "replica": arn}).encode()
        answer = self.cloud.client("lambda").invoke(FunctionName=_GUARD, Payload=payload)
        taken = json.loads(answer["Payload"].read())
        if "kind" not in taken:
            raise MirrorError(f"the guard took no snapshot: {taken}.")
        self._steps.say(f"{taken['kind']}: {taken['refs']:,} refs, {taken['bytes']:,} bytes, locked for 430 days")

    def _wipe(self) -> None:
        """Delete all branches but the default one, which CodeCommit keeps."""
        codecommit, iam = self.cloud.client("codecommit"), self.cloud.client("iam")
        metadata = codecommit.get_repository(repositoryName=_REPLICA)["repositoryMetadata"]
        default = f"refs/heads/{metadata['defaultBranch']}"
        # The pipeline's own is in Azure DevOps; another one of the same user may do the same.
        issued = iam.create_service_specific_credential(
            UserName=self._mirror.user_name, ServiceName="codecommit.amazonaws.com"
        )["ServiceSpecificCredential"]
        endpoint = verification.password_endpoint(
            metadata["cloneUrlHttp"], issued["ServiceUserName"], issued["ServicePassword"]
        )
        branches = [name for name in sample.refs(self.cloud.replica_path(_REPLICA), "refs/heads/") if name != default]
        command = ["git", "push", "-q", endpoint.url, *(f":{name}" for name in branches)]
        environment = engine_api.git_environment(os.environ, endpoint)
        subprocess.run(command, cwd=self.source, env=environment, capture_output=True, check=True)
        self._steps.say(f"deleted {len(branches):,} branches, without a run and without the archive")

    def take_down(self) -> None:
        """Take the mirror down, and look for anything left on either side."""
        self._command("down", _REPLICA, "--yes")
        with self._steps.step("Look for anything left"):
            left = {kind: sorted(set(names) - set(self._before[kind])) for kind, names in self.inventory().items()}
            remains = [f"{kind} {name}" for kind, names in left.items() for name in names]
            if remains:
                raise MirrorError(f"down left behind: {', '.join(remains)}.")
            self._steps.say(f"nothing: no {', no '.join(left)}")
            self.facts.append(f"after down there is no {', no '.join(left)} left")

    def inventory(self) -> dict[str, list[str]]:
        """Return the names of what both sides can hold of a mirror, by kind."""
        branch = sample.git(self.source, "symbolic-ref", "HEAD").strip()
        files = sample.git(self.source, "ls-tree", "--name-only", branch).splitlines()
        return {
            **inventory(self.cloud),
            "pipeline": [definition.name for definition in self._azure.find_definitions()],
            "YAML file": [name for name in files if name == self._mirror.pipeline_path],
        }

    def _push(self, clone: Path, *refspecs: str) -> None:
        environment = engine_api.git_environment(os.environ, self._push_url)
        command = ["git", "-C", str(clone), "push", "-q", self._push_url.url, *refspecs]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MirrorError(f"git push failed: {done.stderr}")

    def _wait_for_runs(self) -> None:
        """Wait until no run is left to do, and tell of those that ended."""
        definition = read_state(self._mirror, self._azure)[1].definition
        if definition is None:
            raise MirrorError("there is no pipeline.")
        while any(not build.done for build in self._azure.builds(definition)):
            time.sleep(0.1)
        for build in sorted(self._azure.builds(definition), key=lambda build: build.id):
            if build.id in self._runs_seen:
                continue
            self._runs_seen.add(build.id)
            steps = [record for record in self._azure.timeline(build) if record.log_id and record.kind == "Task"]
            lines = [line for step in steps for line in self._azure.log(build, int(step.log_id or 0)).splitlines()]
            said = [line.partition(" Mirror ")[2] for line in lines if " Mirror " in line]
            self._steps.say(f"run {build.id} ({build.reason}, {engine_api.sanitize(build.branch)}): {build.result}")
            if build.result != "succeeded":
                raise MirrorError(f"run {build.id} {build.result}:\n" + "\n".join(lines))
            self.facts.append(f"run {build.id} ({build.reason}): {said[-1]}")

    def _compare(self) -> None:
        source = sample.refs(self.source, *_NAMESPACES)
        stored = engine_api.ReplicaRefs(sample.refs(self.cloud.replica_path(_REPLICA)))
        replica = engine_api.by_original_name(stored, _NAMESPACES)
        different = sorted(name for name in {*source, *replica} if source.get(name) != replica.get(name))
        if different:
            raise MirrorError(f"{len(different)} refs differ between source and replica: {', '.join(different[:5])}.")
        sample.git(self.cloud.replica_path(_REPLICA), "fsck", "--connectivity-only")
        self._steps.say(f"{len(source):,} refs are equal, and git fsck finds every object")
        for name, value in stored.items():
            if name.startswith((engine_api.ARCHIVE_PREFIX, engine_api.CARRIED_PREFIX)):
                self._steps.say(f"kept: {value[:12]} as {name}")

    def _command(self, *arguments: str) -> None:
        with self._steps.step(shlex.join(["codecommit-mirror", *arguments])):
            command = [sys.executable, "-m", "codecommit_mirror", *arguments, "--config", str(self._config)]
            self._run(command, tell=True)

    def _run(self, command: list[str], *, tell: bool) -> None:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if tell:
                self._steps.say(line.rstrip())
        if process.wait():
            raise MirrorError(f"{shlex.join(command)} failed:\n{''.join(lines)}")


def inventory(cloud: LocalCloud) -> dict[str, list[str]]:
    """Return the names of what an account can hold of a mirror, by kind."""
    iam = cloud.client("iam")
    users = [user["UserName"] for user in iam.list_users()["Users"]]
    credentials = [
        credential["ServiceSpecificCredentialId"]
        for user in users
        for credential in iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
    ]
    repositories = cloud.client("codecommit").list_repositories()["repositories"]
    functions = cloud.client("lambda").list_functions()["Functions"]
    log_groups = cloud.client("logs").describe_log_groups()["logGroups"]
    return {
        "repository": [repository["repositoryName"] for repository in repositories],
        "policy": [policy["PolicyName"] for policy in iam.list_policies(Scope="Local")["Policies"]],
        "user": users,
        "credential": credentials,
        "role": [role["RoleName"] for role in iam.list_roles()["Roles"]],
        "function": [function["FunctionName"] for function in functions],
        "log group": [group["logGroupName"] for group in log_groups],
    }


def _refuse_pipeline_of_its_own(repository: Path) -> None:
    """Refuse a source that has a file where the demo commits its YAML: the demo's agent runs it on this machine.

    Raises:
        MirrorError: a branch or a tag has it.
    """
    names = [name for name in sample.refs(repository) if name.startswith(_NAMESPACES)]
    lines = "".join(f"{name}:{DEFAULT_PIPELINE_PATH}\n" for name in names).encode("utf-8", "surrogateescape")
    answers = sample.git(repository, "cat-file", "--batch-check", stdin=lines).split("\n")
    for name, answer in zip(names, answers, strict=False):
        if not answer.endswith(" missing"):
            raise MirrorError(
                f"{engine_api.sanitize(name)} of that repository has a file {DEFAULT_PIPELINE_PATH}, and the demo's "
                "agent runs no YAML but its own on this machine; name another repository."
            )


def _clone(source: str, destination: Path) -> None:
    shutil.rmtree(destination)
    shown = re.sub(r"://[^/@]*@", "://", source)
    location = str(Path(source).resolve()) if Path(source).exists() else source
    clone = subprocess.run(
        ["git", "clone", "--quiet", "--mirror", "--no-hardlinks", "--", location, str(destination)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
    )
    if clone.returncode:
        reason = clone.stderr.replace(source, shown).strip().splitlines()[-1:] or ["git gave no reason"]
        raise MirrorError(f"SOURCE {shown!r} cannot be cloned ({reason[0]}); give the path or URL of a Git repository.")
    if sample.git(destination, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise MirrorError(f"SOURCE {shown!r} is a shallow clone, whose history is incomplete; give a full clone.")
    branches = sample.refs(destination, "refs/heads/")
    if not branches:
        raise MirrorError(f"SOURCE {shown!r} has no branch; give a repository with at least one commit.")
    head = (destination / "HEAD").read_text().strip().removeprefix("ref: ")
    if head not in branches:
        # A checkout at a commit, as in CI, is on no branch.
        likely = [name for name in ("refs/heads/main", "refs/heads/master") if name in branches]
        sample.git(destination, "symbolic-ref", "HEAD", [*likely, *branches][0])
    branch = sample.git(destination, "symbolic-ref", "--short", "HEAD").strip()
    single_mirror(_REPLICA, "https://dev.azure.com/contoso/Shop/_git/MyRepo", default_branch=branch)


def _keep(cloud: LocalCloud, demo: _Demo, more: list[str]) -> None:
    """Leave the cloud to a person, with more repositories and a token that may create some."""
    for name in more:
        sample.fill(cloud.create_azure_repository("contoso", "Shop", name))
    with (cloud.root / "mirrors.yaml").open("a") as stream:
        stream.writelines(f"  {name}Replica:\n    azure: {{repository: {name}}}\n" for name in more)
    script = cloud.root / "environment.sh"
    environment = {**demo.environment, "AZURE_DEVOPS_EXT_PAT": cloud.manager_token}
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in environment.items()
        if name == "PATH" or os.environ.get(name) != value
    ]
    with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write("\n".join(lines) + "\n")
    cloud.keep_running()
    click.secho("\nThe embedded cloud is running. Look around:", bold=True)
    for label, text in (
        ("environment", f". {script}"),
        ("commands", "codecommit-mirror status (CODECOMMIT_MIRROR_CONFIG names the demo's mirrors.yaml)"),
        ("AWS endpoint", f"{cloud.aws_url} (aws, boto3 and cdk find it in the environment)"),
        ("source", f"{cloud.azure_url}/contoso/Shop/_git/MyRepo (any user name, password $AZURE_DEVOPS_EXT_PAT)"),
        ("replica", f"git --git-dir {cloud.replica_path(_REPLICA)} log --all --oneline"),
        ("mirrors.yaml", str(cloud.root / "mirrors.yaml")),
        *([("next", f"codecommit-mirror up {more[0]}Replica")] if more else []),
        (
            "more sources",
            f"{cloud.azure_url}/contoso/Shop/_apis/git/repositories?api-version=7.1 (GET lists, POST creates)",
        ),
        ("stop", f"kill {cloud.pid}   (removes everything, {cloud.root} included)"),
    ):
        click.echo(f"  {label + ':':14} {text}")
