"""What may stand in a field of ``mirrors.yaml``, and the sentence for what may not."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_LONGEST_STALE_HOURS = 7 * 24


def matching(pattern: str, what: str, remedy: str) -> AfterValidator:
    """Return what refuses a text that the whole pattern does not match: it "is not {what}; {remedy}"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"is not {what}; {remedy}")
        return value

    return AfterValidator(check)


# https://learn.microsoft.com/azure/devops/organizations/settings/naming-restrictions
AZURE_NAME = matching(
    r"[^\x00-\x1f\x7f-\x9f/\\:*?\"'<>|;#$&~%@{}+,=\[\]]{1,64}",
    "a name that Azure DevOps allows",
    "copy it from the address of the repository's page (decode %20 and the like first)",
)
ACCOUNT = matching(r"[0-9]{12}", "an AWS account id", "write its 12 digits, in quotes")
REGION = matching(r"[a-z]{2,6}(-[a-z]+)+-[0-9]{1,2}", "an AWS region's code", "write one like eu-west-1")
BRANCH = matching(r"[^\x00-\x20\x7f~^:?*\[\\${}]+", "a branch's name", "write one like main")
PIPELINE_PATH = matching(
    r"(?!.*//)(?!(.*/)?\.\.?(/|$))[\w .-][\w ./-]*\.ya?ml",
    "the path of a YAML file in a repository",
    "write one like mirrors/MyRepoReplica.yml",
)
_TAG_TEXT = r"[\w\s.:/=+@-]"
# https://learn.microsoft.com/azure/devops/pipelines/process/scheduled-triggers#cron-syntax
_CRON_FIELDS = (
    ("minute", range(60), ()),
    ("hour", range(24), ()),
    ("day", range(1, 32), ()),
    ("month", range(1, 13), ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("weekday", range(7), ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def cron(value: str) -> str:
    """Return a cron schedule of Azure Pipelines, its fields a space apart."""
    fields = value.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(
            "is not a cron schedule; write minute, hour, day, month and weekday in UTC, like '17 */6 * * *'"
        )
    for text, (name, numbers, names) in zip(fields, _CRON_FIELDS, strict=True):
        for part in text.split(","):
            match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/[1-9][0-9]?)?", part)
            ends = [end for end in match.groups() if end] if match else [""]
            known = {str(number) for number in numbers} | set(names)
            if any((end.lstrip("0") or "0") not in known and end.lower()[:3] not in known for end in ends):
                raise ValueError(
                    f"has the {name} {part!r}, which is not from {numbers[0]} to {numbers[-1]}; correct it, like "
                    "'17 */6 * * *'"
                )
    return " ".join(fields)


def tags(value: dict[str, str]) -> dict[str, str]:
    """Return tags that every service of AWS takes."""
    for key, text in value.items():
        if not re.fullmatch(rf"(?!aws:){_TAG_TEXT}{{1,128}}", key):
            raise ValueError(
                f"has the key {key!r}, which AWS refuses; use 1 to 128 letters, digits, spaces or _ . : / = + - @, "
                "not starting with aws:"
            )
        if not re.fullmatch(rf"{_TAG_TEXT}{{0,256}}", text):
            raise ValueError(
                f"has the value {text!r}, which AWS refuses; use up to 256 letters, digits, spaces or _ . : / = + - @"
            )
    return value


RefNamespace = Annotated[
    str,
    matching(
        r"(?!refs(/|$)|archive(/|$))[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*",
        "a part of refs/ to mirror",
        "write heads for branches, tags for tags, notes for notes",
    ),
]


def not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list that names something."""
    if not value:
        raise ValueError("is empty; name at least one, or remove the key")
    return value


def hours(value: object) -> int:
    """Return the hours of ``36h`` or ``2d``; at most a week, which is how far CloudWatch's alarms look back."""
    match = re.fullmatch(r"([1-9][0-9]{0,2})([hd])", str(value))
    found = int(match[1]) * (24 if match[2] == "d" else 1) if match else 0
    if not 1 <= found <= _LONGEST_STALE_HOURS:
        raise ValueError("is not a time from 1h to 7d; write one like 36h or 2d")
    return found
