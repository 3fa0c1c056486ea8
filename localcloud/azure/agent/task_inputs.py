"""The script and the environment of a step: macros expanded, variables mapped, a role's credentials added."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .definition import UnsupportedPipeline
from .run import Service, Variable

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


def _environment_name(name: str) -> str:
    return name.upper().replace(".", "_").replace(" ", "_")
