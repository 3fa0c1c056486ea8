"""The files of a deployment repository: what each one says, and which of them are ours to write again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from .. import deployment
from ..azure.pipeline import SIGNATURE, render_engine
from ..config.ci import Ci
from ..config.load import Configuration, takes_snapshots
from ..config.schema import json_schema
from ..rendering import ci as rendered_ci
from ..rendering.templates import render_text

MARK = "Written by 'codecommit-mirror init'; 'codecommit-mirror init --update' writes it again."
SCHEMA_FILE, REQUIREMENTS_FILE = "mirrors.schema.json", "requirements.txt"
APP = "python3 -P -m codecommit_mirror.app"
"""The CDK app: ``-P``, since a folder ``constructs`` beside it would hide the library of that name."""
_CI_FILES = {"azure": "azure-pipelines.yml", "github": ".github/workflows/mirrors.yml"}
State = Literal["written", "missing", "outdated", "up to date", "yours"]


@dataclass(frozen=True)
class DeploymentFile:
    """One file of a deployment repository."""

    path: str
    text: str
    mark: str | None
    """What the text of one that is ours contains; None for one that is written once, and is then the user's."""

    def state(self, folder: Path) -> State:
        """Return how it is in a folder; of what is the user's only whether it is there."""
        try:
            text = (folder / self.path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return "missing"
        if self.mark is None or self.mark not in text:
            return "yours"
        return "up to date" if text == self.text else "outdated"


def first_file(answers: Mapping[str, Any]) -> str:
    """Return mirrors.yaml as it is written first.

    Args:
        answers: ``organization``, ``project``, ``repository``, ``replica``, and what else the template takes.
    """
    return render_text(_text("mirrors.yaml.j2"), {**_NOTHING, **answers})


_NOTHING: Mapping[str, Any] = dict.fromkeys(
    ("server", "account", "region", "github", "ci_project", "ci_repository", "organization_id", "keyless")
)
EXAMPLE: Mapping[str, str] = {
    "organization": "contoso",
    "project": "Shop",
    "repository": "MyRepo",
    "replica": "MyRepoReplica",
}


def files(configuration: Configuration, config: str, requirement: str, server: str | None) -> Iterator[DeploymentFile]:
    """Yield the files that a deployment repository has beside mirrors.yaml.

    Args:
        configuration: what mirrors.yaml says.
        config: its path in the repository.
        requirement: the line by which pip installs this package, with its hash.
        server: the Azure DevOps Server that CI's token may go to; None for Azure DevOps Services.
    """
    mirrors, sections, _ = configuration
    section = next(iter(sections), None)
    ci = ci_file(section, sections) if section else None
    first = next(iter(mirrors), None)
    account, region = (
        (section.account, section.region) if section else (first and first.account, first and first.region)
    )
    yield DeploymentFile(SCHEMA_FILE, _json({"$comment": MARK, **json_schema()}), MARK)
    yield DeploymentFile("cdk.json", json.dumps({"app": APP}) + "\n", None)
    yield DeploymentFile(REQUIREMENTS_FILE, f"# {MARK}\n{requirement}\n{_pins()}", MARK)
    yield DeploymentFile("package.json", _text("package.json"), "Pins the CDK CLI that the stacks are deployed with")
    yield DeploymentFile("package-lock.json", _text("package-lock.json"), '"name": "codecommit-mirror"')
    yield DeploymentFile(".gitignore", _text("gitignore"), None)
    about = {"account": account, "region": region, "ci": ci, "replica": first.name if first else "NAME"}
    yield DeploymentFile("README.md", render_text(_text("README.md.j2"), about), None)
    shared = first.shared_engine if first else None
    if shared and section and section.azure:
        here = f"{section.azure.project}/{section.azure.repository}"
        if (shared.repository, shared.branch) == (here, section.branch):
            yield DeploymentFile(shared.path, render_engine(), SIGNATURE)
    for section in sections:
        drill = takes_snapshots(configuration, section)
        text = rendered_ci.render(section, section.service, config, drill=drill, server=server)
        yield DeploymentFile(ci_file(section, sections), text, rendered_ci.SIGNATURE)


def ci_file(section: Ci, sections: Sequence[Ci]) -> str:
    """Return where the pipeline of a section ``ci`` is: with the section's name, where a file has several."""
    path = Path(_CI_FILES[section.service])
    name = f"{path.stem}-{section.name}{path.suffix}" if len(sections) > 1 and section.name else path.name
    return str(path.with_name(name))


def is_ours(cdk_json: str) -> bool:
    """Whether a cdk.json runs this package's app."""
    try:
        return APP.partition(" -m ")[2] in str(json.loads(cdk_json).get("app"))
    except (ValueError, AttributeError):
        return False


def _pins() -> str:
    """Return the third parties that this version was tested with, each with its hashes."""
    lines = _text(REQUIREMENTS_FILE).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _text(name: str) -> str:
    return (resources.files(deployment) / name).read_text(encoding="utf-8")
