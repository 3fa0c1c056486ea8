"""The YAML of a mirror's pipeline, which carries the engine."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..config.mirror import Mirror
from ..engine_api import VERSION
from ..rendering import engine_program
from ..rendering.templates import EXPANDED, load_template
from .variables import wanted_variables

SIGNATURE = "# Written by 'codecommit-mirror pipeline render"
"""What identifies a rendered file."""
STUB_FORMAT = 1
"""Of a YAML file that extends the shared engine; raised when the template takes other parameters."""
_REPLICA_LINE = "#   replica: "
_END_MARKER = "END_OF_MIRROR_ENGINE"
MAX_PART_BYTES = 95_000
"""The agent passes a script to its handler in one environment variable, which Linux limits to 128 KiB (execve(2))."""


def render(mirror: Mirror) -> str:
    """Return the pipeline's YAML: with the engine inside, or extending the template that every mirror shares.

    Raises:
        MirrorError: a name contains text that Azure Pipelines would replace.
    """
    shared = mirror.shared_engine
    if shared:
        return load_template("mirror-stub.yml.j2").render(mirror=mirror, shared=shared, format=STUB_FORMAT)
    variables = [variable.name for variable in wanted_variables(mirror, replica_url="")]
    program = engine_program.program(role=mirror.replica_auth == "role")
    template = load_template("azure-pipelines.yml.j2")
    return template.render(mirror=mirror, shared=None, variables=variables, **_carried(program))


def render_engine() -> str:
    """Return the template that every mirror's YAML extends if they share one engine."""
    return load_template("mirror-engine.yml.j2").render(**_carried(engine_program.program(role=True)))


def _carried(program: str) -> dict[str, object]:
    sha256 = hashlib.sha256(program.encode()).hexdigest()
    parts = [part.removesuffix("\n") for part in cut(program)]
    return {"parts": parts, "sha256": sha256, "engine": f"{VERSION} sha256:{sha256}", "end_marker": _END_MARKER}


@dataclass(frozen=True)
class EngineVersion:
    """Which engine a YAML file carries."""

    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.version} ({self.sha256[:12]})"

    @property
    def is_newer(self) -> bool:
        """Whether a newer release than this one wrote the file."""
        return _numbers(self.version) > _numbers(VERSION)

    @property
    def is_older(self) -> bool:
        """Whether an older release than this one wrote the file."""
        return _numbers(self.version) < _numbers(VERSION)


def engine_in(text: str) -> EngineVersion | None:
    """Return which engine a YAML file carries; None if it carries none."""
    found = re.search(r"(?m)^#   engine:  ([0-9]{1,6}(?:\.[0-9]{1,6}){2}) sha256:([0-9a-f]{64})$", text)
    return EngineVersion(found[1], found[2]) if found else None


def written_by_newer(text: str) -> str | None:
    """Return why a newer release than this one wrote a YAML file, in words; None if none did."""
    engine = engine_in(text)
    if engine and engine.is_newer:
        return f"carries the engine {engine.version}"
    stub = re.search(r"(?m)^#   format:  ([0-9]{1,6})$", text)
    return f"has the format {stub[1]}" if stub and int(stub[1]) > STUB_FORMAT else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def pull_request_text(mirror: Mirror, account: str, region: str) -> str:
    """Return what the owners of a source have to know before they merge a mirror's YAML, in Markdown."""
    template = load_template("pull-request.md.j2")
    return template.render(mirror=mirror, account=account, region=region, version=VERSION)


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
    value = re.search(r"(?:MIRROR_ALLOW_DELETIONS|[ ]{4}allowDeletions): (.*)", text)
    is_parameter = value is None or value[1].strip() == "${{ parameters.allowDeletions }}"
    return not is_parameter or (default is not None and default[1] != "false")


def written_for(text: str) -> str | None:
    """Return the name of the mirror that a file was rendered for, or None if it was not rendered by this project.

    It is empty for the engine that mirrors share.
    """
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
