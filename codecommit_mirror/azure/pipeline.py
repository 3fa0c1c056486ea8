"""The YAML of a mirror's pipeline, which carries the engine."""

from __future__ import annotations

from .. import engine
from ..config.mirror import Mirror
from ..rendering.templates import EXPANDED, load_template
from .variables import wanted_variables

SIGNATURE = "# Written by 'codecommit-mirror pipeline render'"
"""The line that identifies a rendered file."""
_REPLICA_LINE = "#   replica: "
_END_MARKER = "END_OF_MIRROR_ENGINE"
MAX_PROGRAM_BYTES = 130_000
"""The agent passes a script to its handler in one environment variable, which Linux limits to 128 KiB (execve(2))."""


def render(mirror: Mirror) -> str:
    """Return the pipeline's YAML, with the engine inside.

    Raises:
        MirrorError: a name contains text that Azure Pipelines would replace.
    """
    program = engine.program(role=mirror.replica_auth == "role")
    _check_program(program)
    return load_template("azure-pipelines.yml.j2").render(
        mirror=mirror,
        program=program.rstrip("\n"),
        end_marker=_END_MARKER,
        variables=[variable.name for variable in wanted_variables(mirror, replica_url="")],
    )


def written_for(text: str) -> str | None:
    """Return the name of the mirror that a file was rendered for, or None if it was not rendered by this project."""
    if SIGNATURE not in text:
        return None
    lines = (line for line in text.splitlines() if line.startswith(_REPLICA_LINE))
    return next(lines, _REPLICA_LINE).removeprefix(_REPLICA_LINE)


def _check_program(program: str) -> None:
    conflicts = [text for text in (*EXPANDED, _END_MARKER, "\t") if text in program]
    if conflicts or not program.isascii() or len(program) >= MAX_PROGRAM_BYTES:
        raise AssertionError(f"the engine cannot be carried by the YAML: {conflicts or 'not ASCII, or too long'}")
