"""Text of servers, files and other people, made safe for terminals and for the logs of build agents."""

from __future__ import annotations

import re

from .. import engine_api


def clean(text: str) -> str:
    """Return text without control characters, and without logging commands that a build agent runs.

    Lines stay. Azure Pipelines runs ``##vso[...]`` wherever it stands in a line, GitHub Actions ``::command::`` at the
    start of one.
    """
    return "\n".join(re.sub(r"^(\s*):(?=:)", r"\1: ", engine_api.sanitize(line)) for line in text.splitlines())
