"""How many requests ``up`` makes of its own for one mirror: without those of the CDK CLI, and without polling.

The log of ``-v`` has a line for each request to AWS, to Azure DevOps and to a Git server.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from localcloud import LocalCloud, sample

_ROOT = Path(__file__).parent.parent
_MIRROR = """\
defaults:
  azure: {{organization: contoso, project: Shop, server: "{server}"}}
mirrors:
  Replica:
    azure: {{repository: repo}}
"""
_REQUEST = re.compile(r"^\S+ \S+ (?P<request>\S.*) -> \S+(?: refs)?$", re.MULTILINE)
_POLLED = re.compile(r"/build/builds/[0-9]+(/timeline|/logs/[0-9]+)?$")


def main() -> None:
    """Measure, and print a table in Markdown."""
    with tempfile.TemporaryDirectory(prefix="requests-") as folder, LocalCloud() as cloud:
        sample.fill(cloud.create_azure_repository("contoso", "Shop", "repo"))
        config = Path(folder, "mirrors.yaml")
        config.write_text(_MIRROR.format(server=cloud.azure_url))
        cdk = str(_ROOT / "node_modules" / ".bin" / "cdk")
        target = f"aws://{cloud.account}/{cloud.region}"
        _run(cloud, [cdk, "bootstrap", target, "-c", f"config={config}", "--output", str(Path(folder, "cdk.out"))])
        mirror = ("Replica", "--config", str(config), "-v")
        print("| | AWS | Azure DevOps | Git | together | of these, polling |\n|---|---|---|---|---|---|")
        for title, arguments in (
            ("`plan`, nothing there", ("plan", *mirror)),
            ("`up`, the first", ("up", *mirror, "--yes")),
            ("`up`, all equal", ("up", *mirror, "--yes")),
            ("`plan`, all equal", ("plan", *mirror)),
        ):
            log = _run(cloud, [sys.executable, "-m", "codecommit_mirror", *arguments])
            requests = _REQUEST.findall(log)
            polls = sum(bool(_POLLED.search(request)) for request in requests)
            kinds = Counter(_kind(request) for request in requests)
            counts = [kinds[kind] for kind in ("aws", "azure", "git")]
            print(f"| {title} | {' | '.join(map(str, counts))} | {len(requests)} | {polls} |")


def _kind(request: str) -> str:
    if request.startswith("git "):
        return "git"
    return "azure" if request.split()[0] in ("GET", "POST", "PUT", "PATCH", "DELETE") else "aws"


def _run(cloud: LocalCloud, command: list[str]) -> str:
    """Run a command and return its log."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **cloud.environment(),
        "AZURE_DEVOPS_EXT_PAT": cloud.operator_token,
        "CODECOMMIT_MIRROR_AZURE_SERVER": cloud.azure_url,
        "AZURE_GIT_USERNAME": "somebody",
        "AZURE_GIT_PASSWORD": cloud.personal_access_token,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stderr


if __name__ == "__main__":
    main()
