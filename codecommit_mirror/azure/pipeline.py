"""The YAML of a mirror's pipeline, which carries the engine."""

from __future__ import annotations

import hashlib
import re

from ..config.mirror import Mirror
from ..rendering import engine_program
from ..rendering.templates import EXPANDED, load_template
from .variables import wanted_variables

SIGNATURE = "# Written by 'codecommit-mirror pipeline render'"
"""The line that identifies a rendered file."""
_REPLICA_LINE = "#   replica: "
_END_MARKER = "END_OF_MIRROR_ENGINE"
MAX_PART_BYTES = 95_000
"""The agent passes a script to its handler in one environment variable, which Linux limits to 128 KiB (execve(2))."""


def render(mirror: Mirror) -> str:
    """Return the pipeline's YAML, with the engine inside.

    Raises:
        MirrorError: a name contains text that Azure Pipelines would replace.
    """
    program = engine_program.program(role=mirror.replica_auth == "role")
    return load_template("azure-pipelines.yml.j2").render(
        mirror=mirror,
        parts=[part.removesuffix("\n") for part in cut(program)],
        sha256=hashlib.sha256(program.encode()).hexdigest(),
        end_marker=_END_MARKER,
        variables=[variable.name for variable in wanted_variables(mirror, replica_url="")],
    )


def run_parameters(*, allow_deletions: bool, replace_history: str | None) -> dict[str, str]:
    """Return the runtime parameters of a run that may do more than others.

    Args:
        allow_deletions: whether it may delete most of the replica's refs.
        replace_history: the mark of a history that it may replace.
    """
    deletions = {"allowDeletions": "true"} if allow_deletions else {}
    return deletions | ({"replaceHistory": replace_history} if replace_history else {})


def always_allows_deletions(text: str) -> bool:
    """Whether a YAML file lets every run delete most of the replica's refs, and not only one that is told to."""
    default = re.search(r"name: allowDeletions\n(?:[ ]{4}.*\n)*?[ ]{4}default: (\S+)", text)
    value = re.search(r"MIRROR_ALLOW_DELETIONS: (.*)", text)
    is_parameter = value is None or value[1].strip() == "${{ parameters.allowDeletions }}"
    return not is_parameter or (default is not None and default[1] != "false")


def written_for(text: str) -> str | None:
    """Return the name of the mirror that a file was rendered for, or None if it was not rendered by this project."""
    if SIGNATURE not in text:
        return None
    lines = (line for line in text.splitlines() if line.startswith(_REPLICA_LINE))
    return next(lines, _REPLICA_LINE).removeprefix(_REPLICA_LINE)


def cut(program: str) -> list[str]:
    """Cut the engine between its modules into parts that a step each can write.

    Raises:
        AssertionError: the YAML cannot carry it.
    """
    parts = [""]
    for module in re.split(r"(?m)^(?=# -+ \d+\. )", program):
        if len(parts[-1]) + len(module) > MAX_PART_BYTES:
            parts.append("")
        parts[-1] += module
    conflicts = [text for text in (*EXPANDED, _END_MARKER, "\t") if text in program]
    if conflicts or not program.isascii() or max(map(len, parts)) > MAX_PART_BYTES:
        raise AssertionError(f"the engine cannot be carried by the YAML: {conflicts or 'not ASCII, or too long'}")
    return parts
