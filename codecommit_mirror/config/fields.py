"""Field validators of ``mirrors.yaml``, and their messages."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def matching(pattern: str, expected: str, remedy: str) -> AfterValidator:
    """Return a validator that refuses a text which does not match the whole pattern: it "is not {what}; {remedy}"."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"is not {expected}; {remedy}")
        return value

    return AfterValidator(check)


# https://learn.microsoft.com/azure/devops/organizations/settings/naming-restrictions
_AZURE_NAME = r"[^\x00-\x1f\x7f-\x9f/\\:*?\"'<>|;#$&~%@{}+,=\[\]]{1,64}"
AZURE_NAME = matching(
    _AZURE_NAME,
    "a name that Azure DevOps allows",
    "copy it from the address of the repository's page (decode %20 and the like first)",
)
SHARED_REPOSITORY = matching(
    f"{_AZURE_NAME}/{_AZURE_NAME}",
    "a project and a repository",
    "write both, like Platform/mirrors",
)
ACCOUNT = matching(r"[0-9]{12}", "an AWS account id", "write its 12 digits, in quotes")
# https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html; spaces and brackets need quotes there.
PROFILE = matching(r"[\w.@:/+=-]{1,100}", "the name of an AWS profile", "write one of 'aws configure list-profiles'")
ROLE_ARN = matching(
    r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}",
    "the ARN of a role",
    "write one like arn:aws:iam::123456789012:role/Deployer",
)
REGION = matching(r"[a-z]{2,6}(-[a-z]+)+-[0-9]{1,2}", "an AWS region code", "write one like eu-west-1")
# https://git-scm.com/docs/git-check-ref-format; $ { } are refused because Azure Pipelines replaces them.
REPOSITORY_ID = matching(
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "the id of a repository",
    "copy it from 'codecommit-mirror status NAME --json', or leave it out",
)
BRANCH = matching(
    r"(?!-|/|refs/|\.|.*\.\.|.*//|.*/\.|.*\.lock(/|$)|.*[/.]$|.*@\{)[^\x00-\x20\x7f~^:?*\[\\${}]+",
    "a branch name",
    "write one like main, without refs/heads/",
)
PIPELINE_PATH = matching(
    r"(?!.*//)(?!(.*/)?\.\.?(/|$))[\w .-][\w ./-]*\.ya?ml",
    "the path of a YAML file in a repository",
    "write one like mirrors/MyRepoReplica.yml",
)
# https://learn.microsoft.com/azure/devops/pipelines/yaml-schema/pool-demands
DEMAND = matching(
    r"[\w.-]{1,100}( -equals [\w. -]{1,100})?",
    "a demand",
    "write a capability, like Agent.OS, or one with its value, like Agent.OS -equals Linux",
)
_MAX_TAGS = 44
_TAG_TEXT = r"[\w\s.:/=+@-]"


def tags(value: dict[str, str]) -> dict[str, str]:
    """Refuse tags that an AWS service would refuse, or that the stacks set themselves."""
    if len(value) > _MAX_TAGS:
        raise ValueError(
            f"has {len(value)} tags; use at most {_MAX_TAGS}, since AWS allows 50 and the stack sets "
            f"{50 - _MAX_TAGS} of its own"
        )
    for key, text in value.items():
        if key == "managed-by" or key.startswith("codecommit-mirror:"):
            raise ValueError(f"has the key {key!r}, which the stack sets itself; remove it")
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
        "a namespace below refs/ that can be mirrored",
        "write heads for branches, tags for tags, notes for notes",
    ),
]


def not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list."""
    if not value:
        raise ValueError("is empty; name at least one, or remove the key")
    return value


def hours(value: object, most: int) -> int:
    """Return the hours of ``36h`` or ``2d``, at most ``most``."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hd])", str(value))
    number = int(match[1]) * (24 if match[2] == "d" else 1) if match else 0
    if not 1 <= number <= most:
        raise ValueError(f"is not a duration from 1h to {most // 24}d; write one like 36h or 2d")
    return number


def is_azure_name(text: str) -> bool:
    """Whether a project or a repository may have this name in mirrors.yaml."""
    return re.fullmatch(_AZURE_NAME, text) is not None
