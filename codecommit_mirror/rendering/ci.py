"""The pipeline of the repository that holds ``mirrors.yaml``, for Azure Pipelines or GitHub Actions."""

from __future__ import annotations

from ..config.ci import Ci, Service
from .templates import load_template

SIGNATURE = "# Written by 'codecommit-mirror ci render'"
"""The line that identifies a rendered file."""
_TEMPLATES = {"azure": "ci-azure.yml.j2", "github": "ci-github.yml.j2"}
_INSTALL = """\
python3 -m venv .venv
.venv/bin/pip install --quiet --no-compile --require-hashes --only-binary :all: -r requirements.txt
npm ci --silent --no-fund --no-audit --ignore-scripts"""
_PATH = 'export PATH="$PWD/.venv/bin:$PWD/node_modules/.bin:$PATH"'
TIP = """\
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraheader
GIT_CONFIG_VALUE_0="AUTHORIZATION: bearer $SYSTEM_ACCESSTOKEN" \\
  git ls-remote "$BUILD_REPOSITORY_URI" "$BUILD_SOURCEBRANCH" > tip.txt
unset GIT_CONFIG_COUNT SYSTEM_ACCESSTOKEN
tip=$(awk '$2 == ENVIRON["BUILD_SOURCEBRANCH"] {print $1}' tip.txt)"""
"""Git lists every ref whose name ends like the branch's."""
_UPLOAD = """trap 'echo "##vso[task.uploadsummary]$AGENT_TEMPDIRECTORY/Mirrors.md"' EXIT
: > "$AGENT_TEMPDIRECTORY/Mirrors.md\""""
_SIGN_IN = """\
set -euo pipefail
token=$(az account get-access-token --resource 499b84ac-1321-427f-aa17-267ca6975798 --query accessToken --output tsv)
echo "##vso[task.setvariable variable=azureToken;issecret=true]$token\""""
"""https://learn.microsoft.com/azure/devops/pipelines/library/add-devops-entra-service-connection"""
_NAMES = """\
{name}=""
if [ -s {file} ]; then
  python3 -c 'import json; print(*json.load(open("{file}"))["{key}"])' > {name}.txt
  read -r {name} < {name}.txt || true
fi"""
"""A command that failed has written nothing."""
_APPROVED = """\
python3 -c '
import json, os
print(json.dumps({"format": 1, "removed": os.environ["REMOVED"].split()}))' > approved.json"""
_AZURE_SIGN_IN = """\
AZURE_CLIENT_ID: ${{ vars.AZURE_CLIENT_ID }}
AZURE_TENANT_ID: ${{ vars.AZURE_TENANT_ID }}"""


def render(ci: Ci, service: Service, config: str, *, drill: bool = False, server: str | None = None) -> str:
    """Return the pipeline's YAML, which contains no secret.

    Args:
        ci: the section ``ci`` of ``mirrors.yaml``.
        service: the CI service.
        config: the path of ``mirrors.yaml`` in the repository.
        drill: whether a monthly run restores every mirror's last snapshot.
        server: the Azure DevOps Server that the jobs' token may go to; None for Azure DevOps Services.

    Raises:
        MirrorError: a name contains text that the CI service would replace.
    """
    return load_template(_TEMPLATES[service]).render(
        ci=ci,
        config=config,
        install=_INSTALL,
        tip=TIP,
        upload=_UPLOAD,
        path=_PATH,
        removed=_NAMES.format(name="removed", file="up.json", key="removed"),
        running=_NAMES.format(name="running", file="up.json", key="running"),
        approved=_APPROVED,
        azure_sign_in=_AZURE_SIGN_IN,
        sign_in_script=_SIGN_IN,
        connection=ci.azure.service_connection if ci.azure else None,
        deploys=_azure_condition(ci.branch),
        drill=drill,
        server=server,
        signature=SIGNATURE,
    )


def _azure_condition(branch: str) -> str:
    quoted = f"refs/heads/{branch}".replace("'", "''")
    others = "ne(variables['Build.Reason'], 'PullRequest'), ne(variables['Build.Reason'], 'Schedule')"
    return f"and({others}, eq(variables['Build.SourceBranch'], '{quoted}'))"
