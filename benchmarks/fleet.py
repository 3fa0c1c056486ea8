"""What a fleet costs: time, calls by service and memory, for each mirror, at two sizes.

Everything is provisioned from CI's commands on the embedded cloud, with roles and job tokens. The services count the
requests, so that those of the CDK CLI are among them. The YAML is in the sources, or with ``--pipelines`` in one
repository for all, whose project has so many other pipelines; with ``--delay`` every round trip to Azure DevOps takes
so long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from localcloud import LocalCloud, sample
from localcloud.azure.service_connections import organization_id

_ROOT = Path(__file__).parent.parent
_CHANGED = 5
_SHARED = "pipelines"
_FILE = """\
defaults:
  account: "{account}"
  region: {region}
  source_auth: job-token
  replica_auth: role
  azure: {{organization: contoso, project: Shop, server: "{server}"{layout}}}
ci:
  azure: {{organization: contoso, organization_id: {organization_id}, project: Platform, repository: mirrors}}
mirrors:
"""
_PYTHON = """\
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=open(3, "w"))
sys.exit(done.returncode)
"""


@dataclass(frozen=True)
class Cost:
    """What a command cost."""

    seconds: float
    megabytes: float
    """The largest of its processes."""
    calls: dict[str, int]


def main() -> None:
    """Measure, and print a table in Markdown for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500], help="how many mirrors")
    parser.add_argument("--pipelines", type=int, help="how many other pipelines the repository for all YAML has")
    parser.add_argument("--delay", type=float, default=0, metavar="MS", help="how long a round trip to Azure takes")
    options = parser.parse_args()
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder, LocalCloud() as cloud:
            print(f"\n| {size} mirrors | seconds | ms each | MB | calls each |\n|---|---|---|---|---|", flush=True)
            _Fleet(cloud, Path(folder), size, options.pipelines).measure(options.delay)


class _Fleet:
    def __init__(self, cloud: LocalCloud, folder: Path, size: int, pipelines: int | None) -> None:
        self._cloud, self._folder, self._size, self._is_shared = cloud, folder, size, pipelines is not None
        self._config, self._app = folder / "mirrors.yaml", folder / "cdk.out"
        for number in range(size):
            source = cloud.create_azure_repository("contoso", "Shop", f"repo-{number}")
            sample.fill(source, commits=3, branches=1, tags=1, pull_requests=0)
        if pipelines is not None:
            sample.fill(cloud.create_azure_repository("contoso", "Shop", _SHARED), commits=1, branches=1, tags=1)
            self._add_pipelines(pipelines)
        cloud.azure.add_parallel_jobs(3)
        self._write()

    def _add_pipelines(self, number: int) -> None:
        """Create pipelines of other people's beside the mirrors' YAML."""
        url = f"{self._cloud.azure_url}/contoso/Shop/_apis"
        with httpx.Client(auth=("", self._cloud.operator_token), params={"api-version": "7.1"}) as client:
            repository = client.get(f"{url}/git/repositories/{_SHARED}").json()["id"]
            for one in range(number):
                body = {
                    "name": f"other-{one}",
                    "process": {"type": 2, "yamlFilename": f"other-{one}.yml"},
                    "repository": {"id": repository, "type": "TfsGit", "defaultBranch": "refs/heads/main"},
                }
                client.post(f"{url}/build/definitions", json=body).raise_for_status()

    def measure(self, delay: float) -> None:
        """Provision the fleet, change a part of it, and look at it."""
        cdk = str(_ROOT / "node_modules" / ".bin" / "cdk")
        context = ["-c", f"config={self._config}", "--no-notices"]
        self._run([cdk, "bootstrap", f"aws://{self._cloud.account}/{self._cloud.region}", *context])
        common = ["--config", str(self._config)]
        identity = ["codecommit-mirror-identity", "--require-approval", "never", "--output", str(self._folder / "id")]
        self._run([cdk, "deploy", *identity, *context])
        self._report("`cdk synth`", [cdk, "synth", "--quiet", "--output", str(self._app), *context])
        job = ("up", "--all", "--job", *common)
        self._report("`plan`, nothing deployed", _command("plan", "--all", "--no-azure", *common))
        self._report("`up --job`, all new", _command(*job))
        self._report("`verify --wait`, with the runs", _command("verify", "--all", "--wait", *common))
        self._cloud.azure.slow_down(delay)
        self._report("`up --job`, nothing to do", _command(*job))
        self._report("`status`", _command("status", *common))
        self._report("`plan`, all deployed", _command("plan", "--all", "--no-azure", *common))
        self._write(changed=_CHANGED)
        self._report(f"`up --job`, {_CHANGED} changed", _command(*job))

    def _write(self, changed: int = 0) -> None:
        head = _FILE.format(
            account=self._cloud.account,
            region=self._cloud.region,
            server=self._cloud.azure_url,
            organization_id=organization_id("contoso"),
            layout=f", pipelines_repository: {_SHARED}" if self._is_shared else "",
        )
        lines = [
            f"  Replica-{number}: {{azure: {{repository: repo-{number}}}"
            f"{', description: changed' if number < changed else ''}}}\n"
            for number in range(self._size)
        ]
        self._config.write_text(head + "".join(lines))

    def _report(self, title: str, command: Sequence[str]) -> None:
        cost = self._run(command)
        calls = ", ".join(
            f"{service} {number / self._size:.2f}" for service, number in sorted(cost.calls.items()) if number
        )
        each = cost.seconds / self._size * 1000
        print(f"| {title} | {cost.seconds:.1f} | {each:.0f} | {cost.megabytes:.0f} | {calls} |", flush=True)

    def _run(self, command: Sequence[str]) -> Cost:
        before = self._cloud.requests()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**clean, **self._cloud.environment(), "PATH": path}
        environment["AZURE_DEVOPS_EXT_PAT"] = self._cloud.operator_token
        environment["CODECOMMIT_MIRROR_AZURE_SERVER"] = self._cloud.azure_url
        report, memory = os.pipe()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", _PYTHON.replace("open(3", f"open({memory}"), *command],
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[memory],
        )
        seconds = time.monotonic() - started
        os.close(memory)
        with os.fdopen(report) as stream:
            peak = int(stream.read() or 0)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        after = self._cloud.requests()
        unit = 1024 if sys.platform != "darwin" else 1024 * 1024
        return Cost(seconds, peak / unit, {name: after[name] - before.get(name, 0) for name in after})


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "codecommit_mirror", *arguments]


if __name__ == "__main__":
    main()
