"""The whole job on the embedded cloud, told step by step: deploy, credentials, pipeline, mirror, change, destroy."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from localcloud import LocalCloud, sample
from localcloud.azure.agent import Variable, run_pipeline

from .config import single_mirror
from .errors import MirrorError

_ROOT = Path(__file__).parent.parent
_NAMESPACES = ("refs/heads/", "refs/tags/", "refs/notes/")
_REPLICA = "MyRepoReplica"
_MIRRORS = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
mirrors:
  {replica}:
    azure: {{repository: MyRepo, default_branch: {branch}}}
"""


def run_demo(source: str | None, *, keep: bool) -> None:
    """Run the demo; raise MirrorError when a step does not do what it should."""
    cdk = _find_cdk()
    narrator = Narrator()
    with LocalCloud() as cloud:
        narrator.say(f"Embedded cloud: AWS at {cloud.aws_url}, Azure DevOps at {cloud.azure_url}. No account is used.")
        demo = _Demo(cloud, narrator, cdk)
        branch = demo.fill_source(source)
        demo.set_up(branch)
        demo.mirror("First run")
        demo.change_source(branch)
        demo.mirror("Second run")
        if keep:
            _keep(cloud, demo)
        else:
            demo.tear_down()
    narrator.summary()


class Narrator:
    """Tells steps with elapsed times, and sums them up."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[str, float]] = []
        self.facts: list[str] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and say how long it took."""
        began = time.monotonic()
        click.secho(f"[{began - self._started:6.1f} s] {title}", bold=True)
        yield
        self._steps.append((title, time.monotonic() - began))

    def say(self, text: str) -> None:
        """Print one line below the step."""
        click.echo(f"           {text}")

    def summary(self) -> None:
        """Print every step's time and what was seen."""
        click.secho("\nSummary", bold=True)
        for title, seconds in self._steps:
            click.echo(f"{seconds:8.1f} s  {title}")
        click.echo(f"{time.monotonic() - self._started:8.1f} s  in all")
        for fact in self.facts:
            click.echo(f"  - {fact}")


class _Demo:
    def __init__(self, cloud: LocalCloud, narrator: Narrator, cdk: str) -> None:
        self.cloud, self._narrator, self._cdk_program = cloud, narrator, cdk
        self.source = cloud.create_azure_repository("contoso", "Shop", "MyRepo")
        self._config = cloud.root / "mirrors.yaml"
        self._credential = cloud.root / "credential.csv"
        self._pipeline = cloud.root / "azure-pipelines.yml"
        self._variables: dict[str, Variable] = {}
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **cloud.environment(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(Path(cdk).parent), os.environ["PATH"]]),
        }
        self._before: dict[str, list[str]] = {}

    def fill_source(self, source: str | None) -> str:
        """Put history into the source and return its default branch."""
        with self._narrator.step(
            "Source in Azure Repos: " + re.sub(r"://[^/@]*@", "://", source or "the built-in sample")
        ):
            if source is None:
                sample.fill(self.source, extra_branches=sample.HOSTILE_BRANCHES)
            else:
                _clone(source, self.source)
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
            self._narrator.say(f"{commits:,} commits; refs: {kinds}")
            self._narrator.facts.append(f"source: {commits:,} commits, {len(refs):,} refs ({kinds})")
        return branch

    def set_up(self, branch: str) -> None:
        """Deploy the stack, issue the credential, render the pipeline and set its variables."""
        text = _MIRRORS.format(server=self.cloud.azure_url, replica=_REPLICA, branch=json.dumps(branch))
        self._config.write_text(text)
        with self._narrator.step("cdk bootstrap (once for each account and region)"):
            self._cdk("bootstrap", f"aws://{self.cloud.account}/{self.cloud.region}")
        self._before = inventory(self.cloud)
        with self._narrator.step(f"cdk deploy {_REPLICA}"):
            self._cdk("deploy", _REPLICA, "--require-approval", "never")
            for kind, names in inventory(self.cloud).items():
                for name in sorted(set(names) - set(self._before[kind])):
                    self._narrator.say(f"created {kind} {name}")
        with self._narrator.step(f"codecommit-mirror credentials issue {_REPLICA}"):
            self._companion("credentials", "issue", _REPLICA, "--output", str(self._credential))
            self._narrator.say(f"user name and password are in {self._credential} (mode 0600)")
        with self._narrator.step(f"codecommit-mirror pipeline render {_REPLICA}"):
            self._companion("pipeline", "render", _REPLICA, "--output", str(self._pipeline))
            wanted = json.loads(self._companion("pipeline", "variables", _REPLICA, "--json"))
            with self._credential.open(newline="") as stream:
                row = next(csv.DictReader(stream))
            secrets = {
                "AZURE_GIT_USERNAME": "git-user",
                "AZURE_GIT_PASSWORD": self.cloud.personal_access_token,
                "AWS_GIT_USERNAME": row["User Name"],
                "AWS_GIT_PASSWORD": row["Password"],
            }
            self._variables = {
                v["name"]: Variable(secrets[v["name"]] if v["secret"] else v["value"], v["secret"]) for v in wanted
            }
            self._narrator.say(f"variables set in the pipeline: {', '.join(self._variables)}")

    def mirror(self, title: str) -> None:
        """Run the pipeline on the embedded agent, then compare the replica with the source."""
        with self._narrator.step(f"{title} of the pipeline"):
            run = run_pipeline(self._pipeline.read_text(), self._variables, job_token=self.cloud.job_token)
            for line in run.log:
                if not line.startswith("##vso"):
                    self._narrator.say(line)
                if line.startswith("Mirror "):
                    self._narrator.facts.append(f"{title.lower()}: {line.removeprefix('Mirror ')}")
            if run.result != "succeeded":
                raise MirrorError(f"the pipeline's run {run.result}; its log is above.")
        with self._narrator.step("Compare the replica with the source, ref by ref"):
            self._compare()

    def _compare(self) -> None:
        source = sample.refs(self.source, *_NAMESPACES)
        replica = sample.refs(self.cloud.replica_path(_REPLICA), *_NAMESPACES)
        different = sorted(name for name in {*source, *replica} if source.get(name) != replica.get(name))
        if different:
            raise MirrorError(f"{len(different)} refs differ between source and replica: {', '.join(different[:5])}.")
        sample.git(self.cloud.replica_path(_REPLICA), "fsck", "--connectivity-only")
        self._narrator.say(f"{len(source):,} refs are equal, and git fsck finds every object")
        for name, value in sample.refs(self.cloud.replica_path(_REPLICA), "refs/archive/").items():
            self._narrator.say(f"kept: {value[:12]} as {name}")

    def change_source(self, branch: str) -> None:
        """Do at the source what developers do in a day."""
        with self._narrator.step("Changes at the source"):
            tip = sample.commit(self.source, branch, "A new commit")
            self._narrator.say(f"a new commit on {branch}")
            sample.git(self.source, "update-ref", f"refs/heads/{self._prefix}/new-branch", tip)
            self._narrator.say(f"a new branch, {self._prefix}/new-branch")
            sample.git(self.source, "tag", "-a", f"{self._prefix}-tag", "-m", "A tag", tip)
            self._narrator.say(f"a new tag, {self._prefix}-tag")
            sample.git(self.source, "update-ref", "-d", f"refs/heads/{self._prefix}/to-be-deleted")
            self._narrator.say(f"a deleted branch, {self._prefix}/to-be-deleted")
            rewritten, parent = f"{self._prefix}/to-be-rewritten", f"refs/heads/{branch}~1"
            sample.commit(self.source, rewritten, "History rewritten", parent=parent)
            self._narrator.say(f"a force-push to {rewritten}")

    def tear_down(self) -> None:
        """Revoke the credential, destroy the stack, and look for anything left."""
        with self._narrator.step(f"codecommit-mirror credentials revoke {_REPLICA} --all"):
            self._companion("credentials", "revoke", _REPLICA, "--all")
        with self._narrator.step(f"cdk destroy {_REPLICA}"):
            self._cdk("destroy", _REPLICA, "--force")
        with self._narrator.step("Look for anything left in the account"):
            left = {kind: sorted(set(names) - set(self._before[kind])) for kind, names in inventory(self.cloud).items()}
            remains = [f"{kind} {name}" for kind, names in left.items() for name in names]
            if remains:
                raise MirrorError(f"cdk destroy left behind: {', '.join(remains)}.")
            self._narrator.say(f"nothing: no {', no '.join(left)}")
            self._narrator.facts.append(f"after cdk destroy there is no {', no '.join(left)} left")

    def _cdk(self, command: str, *arguments: str) -> None:
        options = ["-c", f"config={self._config}", "--output", str(self.cloud.root / "cdk.out"), "--no-notices"]
        self._run([self._cdk_program, command, *arguments, *options])

    def _companion(self, *arguments: str) -> str:
        return self._run([sys.executable, "-m", "codecommit_mirror", *arguments, "--config", str(self._config)])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=_ROOT, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MirrorError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


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
        raise MirrorError(f"SOURCE {shown!r} is a shallow clone, whose history is not whole; give a full one.")
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


def _find_cdk() -> str:
    local = _ROOT / "node_modules" / ".bin" / "cdk"
    found = str(local) if local.exists() else shutil.which("cdk")
    if not found:
        raise MirrorError("the CDK CLI is not installed; run 'npm ci' in the project's folder.")
    return found


def _keep(cloud: LocalCloud, demo: _Demo) -> None:
    script = cloud.root / "environment.sh"
    exports = {**cloud.environment(), "AZURE_DEVOPS_EXT_PAT": cloud.personal_access_token}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    lines.append(f'export PATH={shlex.quote(f"{Path(sys.executable).parent}:{Path(_find_cdk()).parent}")}:"$PATH"')
    with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write("\n".join(lines) + "\n")
    cloud.keep_running()
    click.secho("\nThe embedded cloud is running. Look around:", bold=True)
    for label, text in (
        ("environment", f". {script}"),
        ("companion", f"codecommit-mirror credentials list {_REPLICA} --config {cloud.root / 'mirrors.yaml'}"),
        ("AWS endpoint", f"{cloud.aws_url} (aws, boto3 and cdk find it in the environment)"),
        ("source", f"{cloud.azure_url}/contoso/Shop/_git/MyRepo (any user name, password $AZURE_DEVOPS_EXT_PAT)"),
        ("replica", f"git --git-dir {cloud.replica_path(_REPLICA)} log --all --oneline"),
        ("mirrors.yaml", str(cloud.root / "mirrors.yaml")),
        ("stop", f"kill {cloud.pid}   (removes everything, {cloud.root} included)"),
    ):
        click.echo(f"  {label + ':':14} {text}")
