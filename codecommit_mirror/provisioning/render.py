"""The pipeline of the repository that holds ``mirrors.yaml``, for Azure Pipelines or GitHub Actions."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined

from ..config.ci import Ci, Service
from ..rendering import comment, scalar

SIGNATURE = "# Written by 'codecommit-mirror ci render'"
"""The line that tells a file of ours."""
_TEMPLATES = {"azure": "ci-azure.yml.j2", "github": "ci-github.yml.j2"}
_INSTALL = """\
python3 -m venv .venv
.venv/bin/pip install --quiet --no-compile -r {requirements}
npm ci --silent --no-fund --no-audit --ignore-scripts"""
_SYNTH = """\
export PATH="$PWD/.venv/bin:$PWD/node_modules/.bin:$PATH"
cdk synth --quiet --no-notices -c config="$CONFIG\""""
_TIP = """\
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraheader
GIT_CONFIG_VALUE_0="AUTHORIZATION: bearer $SYSTEM_ACCESSTOKEN" \\
  git ls-remote "$BUILD_REPOSITORY_URI" "$BUILD_SOURCEBRANCH" > tip.txt
unset GIT_CONFIG_COUNT SYSTEM_ACCESSTOKEN
read -r tip _ < tip.txt"""
_UPLOAD = """trap 'echo "##vso[task.uploadsummary]$AGENT_TEMPDIRECTORY/Mirrors.md"' EXIT
: > "$AGENT_TEMPDIRECTORY/Mirrors.md\""""
_LINT = "cfn-lint cdk.out/*.template.json"
_REMOVED = """\
python3 -c 'import json; print(*json.load(open("deployed.json"))["remove"])' > removed.txt
read -r removed < removed.txt || true"""


def render(ci: Ci, service: Service, config: str) -> str:
    """Return the pipeline's YAML; it holds no secret.

    Args:
        ci: the section ``ci`` of ``mirrors.yaml``.
        service: whose YAML.
        config: the path of ``mirrors.yaml`` in the repository.

    Raises:
        MirrorError: a name holds text that the CI service would replace.
    """
    # YAML, not HTML: every value goes through a filter of ours.
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
        variable_start_string="@{",
        variable_end_string="}@",
    )
    environment.filters.update(scalar=scalar, comment=comment)
    template = (resources.files("pipeline_templates") / _TEMPLATES[service]).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        ci=ci,
        config=config,
        install=lambda requirements: _INSTALL.format(requirements=requirements),
        synth=_SYNTH,
        lint=_LINT,
        tip=_TIP,
        upload=_UPLOAD,
        removed=_REMOVED,
        deploys=_azure_condition(ci.branch),
        signature=SIGNATURE,
    )


def _azure_condition(branch: str) -> str:
    quoted = f"refs/heads/{branch}".replace("'", "''")
    return f"and(ne(variables['Build.Reason'], 'PullRequest'), eq(variables['Build.SourceBranch'], '{quoted}'))"
