"""The script and the environment of a step: macros expanded, variables mapped, a role's credentials added."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .definition import service_connection
from .run import Service, Variable
from .unsupported import UnsupportedPipeline

_MACRO = re.compile(r"\$\(([A-Za-z0-9_. -]+)\)")
_DEFAULT_ROLE_SECONDS = "900"
"""Of the AWS toolkit's tasks, unless the variable ``aws.rolecredential.maxduration`` says more."""


def expand(text: str, variables: Mapping[str, Variable]) -> str:
    """Replace the macros of known variables."""
    by_name = {name.lower(): variable.value for name, variable in variables.items()}
    return _MACRO.sub(lambda match: by_name.get(match.group(1).lower(), match.group()), text)


def step_environment(
    step: Mapping[str, Any], variables: Mapping[str, Variable], work: Path, machine: Mapping[str, str]
) -> dict[str, str]:
    """Return a step's environment: plain variables by their upper-case names, and what ``env:`` maps."""
    return {
        **machine,
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "LANG": "C.UTF-8",
        "TF_BUILD": "True",
        **{_environment_name(name): v.value for name, v in variables.items() if not v.secret},
        **{name: expand(str(value), variables) for name, value in step.get("env", {}).items()},
    }


def task_script(
    step: Mapping[str, Any], variables: Mapping[str, Variable], service: Service
) -> tuple[str, Mapping[str, str]]:
    """Return the script of a task ``AWSShellScript``, and the environment variables of its role.

    Raises:
        RuntimeError: AWS gives no credentials.
        UnsupportedPipeline: the task does not run an inline script.
    """
    inputs = {name: expand(str(value), variables) for name, value in step["inputs"].items()}
    if inputs.get("scriptType") != "inline":
        raise UnsupportedPipeline("AWSShellScript only runs inline scripts here")
    seconds = variables.get("aws.rolecredential.maxduration", Variable(_DEFAULT_ROLE_SECONDS)).value
    return inputs["inlineScript"], service.aws_environment(inputs["awsCredentials"], inputs["regionName"], int(seconds))


_AZ = """\
#!/bin/sh
# Knows one command of the Azure CLI.
wanted="account get-access-token --resource 499b84ac-1321-427f-aa17-267ca6975798 --query accessToken --output tsv"
if [ "$*" != "$wanted" ]; then
  echo "ERROR: the embedded agent's az does not know: $*" >&2
  exit 2
fi
exec cat "$AZURE_CONFIG_DIR/token"
"""


def azure_cli_script(
    step: Mapping[str, Any], variables: Mapping[str, Variable], work: Path, path: str, service: Service
) -> tuple[str, Mapping[str, str]]:
    """Return the script of a task ``AzureCLI@3``, and the environment in which ``az`` is signed in.

    Raises:
        UnsupportedPipeline: the task does not run an inline script in bash.
    """
    inputs = {name: expand(str(value), variables) for name, value in step["inputs"].items()}
    if (inputs.get("scriptType"), inputs.get("scriptLocation")) != ("bash", "inlineScript"):
        raise UnsupportedPipeline("AzureCLI only runs inline scripts in bash here")
    used = service_connection({**step, "inputs": inputs})
    assert used
    folder = work / "azure"
    folder.mkdir(mode=0o700)
    (folder / "token").write_text(service.entra_token(used[1]) + "\n")
    (folder / "az").write_text(_AZ)
    (folder / "az").chmod(0o700)
    return inputs["inlineScript"], {"AZURE_CONFIG_DIR": str(folder), "PATH": f"{folder}:{path}"}


def sign_out(work: Path) -> None:
    """Forget what ``az`` knows, as the task does at its end."""
    shutil.rmtree(work / "azure", ignore_errors=True)


def _environment_name(name: str) -> str:
    return name.upper().replace(".", "_").replace(" ", "_")
