"""Logging commands: what a script asks of the agent by printing ``##vso[...]``.

https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
"""

from __future__ import annotations

import re
from pathlib import Path

from .run import Run, Variable
from .unsupported import UnsupportedPipeline

_COMMAND = re.compile(r"##vso\[([\w.]+)([^\]]*)\](.*)", re.IGNORECASE)


def run_logging_command(
    line: str, run: Run, step: str | None, outputs: dict[str, str], variables: dict[str, Variable]
) -> None:
    """Carry out the logging command in a line of output, if there is one.

    Args:
        line: the line, before secrets are masked.
        run: the record to change.
        step: the step's name, for output variables.
        outputs: the job's output variables, by ``step.variable``; a new one is added.
        variables: those that the job's later steps have; a new one is added.

    Raises:
        UnsupportedPipeline: the agent does not know the command.
    """
    match = _COMMAND.search(line)
    if match is None:
        return
    name, fields, message = match.groups()
    properties = dict(part.strip().split("=", 1) for part in fields.split(";") if "=" in part)
    if name == "task.logissue":
        text = message.replace("%0D", "\r").replace("%0A", "\n").replace("%AZP25", "%")
        run.issues.append((properties["type"], text))
    elif name == "task.complete":
        result = properties["result"]
        run.lower_result(result[0].lower() + result[1:])
    elif name == "task.uploadsummary":
        run.summaries.append(Path(message).read_text())
    elif name == "task.setvariable" and properties.get("isOutput") == "true" and step:
        outputs[f"{step}.{properties['variable']}"] = message
    elif name == "task.setvariable" and "isOutput" not in properties:
        variables[properties["variable"]] = Variable(message, secret=properties.get("issecret") == "true")
    else:
        raise UnsupportedPipeline(f"no such logging command: {name}")
