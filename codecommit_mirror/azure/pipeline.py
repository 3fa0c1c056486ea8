"""The Azure pipeline of a mirror: its YAML, and the variables that it wants."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from ..config.mirror import Mirror
from ..rendering import EXPANDED, comment, scalar

SIGNATURE = "# Written by 'codecommit-mirror pipeline render'"
"""The line that tells a file of ours."""
_REPLICA_LINE = "#   replica: "
_END_MARKER = "END_OF_MIRROR_SYNC"
MAXIMUM_SCRIPT_BYTES = 100_000
"""The agent hands a script to its handler in an environment variable, and Linux takes 128 KiB for one (execve(2))."""


@dataclass(frozen=True)
class PipelineVariable:
    """One of the pipeline's variables, by the blog post's names."""

    name: str
    secret: bool
    value: str | None
    """None for a secret one, whose value this program does not have."""
    source: str
    """Where the value comes from."""


def render(mirror: Mirror) -> str:
    """Return the pipeline's YAML, with the mirror program inside.

    Raises:
        MirrorError: a name holds text that Azure Pipelines would replace.
    """
    templates = resources.files("pipeline_templates")
    program = (templates / "mirror_sync.py").read_text(encoding="utf-8")
    _check_program(program)
    # YAML, not HTML: every value goes through a filter of ours.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.filters.update(scalar=scalar, comment=comment)
    template = environment.from_string((templates / "azure-pipelines.yml.j2").read_text(encoding="utf-8"))
    return template.render(
        mirror=mirror,
        program=program.rstrip("\n"),
        end_marker=_END_MARKER,
        variables=[variable.name for variable in variables(mirror, replica_url="")],
    )


def written_for(text: str) -> str | None:
    """Return the name of the mirror that a file was rendered for, None when it is not one of ours."""
    if SIGNATURE not in text:
        return None
    lines = (line for line in text.splitlines() if line.startswith(_REPLICA_LINE))
    return next(lines, _REPLICA_LINE).removeprefix(_REPLICA_LINE)


def variables(mirror: Mirror, replica_url: str) -> tuple[PipelineVariable, ...]:
    """Return the variables that the pipeline wants: six, or four when the run's own token reads the source.

    Args:
        mirror: the mirror.
        replica_url: the stack output ``ReplicaUrl``.
    """
    azure = "Azure Repos: Clone, Generate Git Credentials"
    aws = "codecommit-mirror credentials issue"
    every = (
        PipelineVariable("AZURE_REPO_URL", False, mirror.azure.clone_url, "mirrors.yaml"),
        PipelineVariable("AZURE_GIT_USERNAME", True, None, azure),
        PipelineVariable("AZURE_GIT_PASSWORD", True, None, azure),
        PipelineVariable("AWS_REPO_URL", False, replica_url.removeprefix("https://"), "stack output ReplicaUrl"),
        PipelineVariable("AWS_GIT_USERNAME", True, None, aws),
        PipelineVariable("AWS_GIT_PASSWORD", True, None, aws),
    )
    if mirror.source_auth == "job-token":
        return tuple(variable for variable in every if not variable.name.startswith("AZURE_GIT_"))
    return every


def _check_program(program: str) -> None:
    found = [text for text in (*EXPANDED, _END_MARKER, "\t") if text in program]
    if found or not program.isascii() or len(program) > MAXIMUM_SCRIPT_BYTES:
        raise AssertionError(f"mirror_sync.py cannot travel inside the YAML: {found or 'not ASCII, or too long'}")
