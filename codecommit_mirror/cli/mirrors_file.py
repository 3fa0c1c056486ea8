"""``codecommit-mirror discover`` and ``config``: what writes and checks mirrors.yaml."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from .. import engine_api
from ..azure.files import DISCOVERED, propose_mirrors, read_place
from ..azure.rest.client import AzureDevOps
from ..azure.rest.organization import list_repositories, read_organization_id
from ..azure.rest.token import find_token
from ..config import azure_url
from ..config.discovery import Candidate, add, choose, set_organization_id
from ..config.load import load, load_mirrors
from ..config.mirror import AzureRepository, Mirror
from ..config.mirrors_file import read
from ..config.schema import json_schema
from ..errors import ConfigurationError, MirrorError
from .options import config_option, inside_repository, json_option
from .output import echo, print_json, print_table

_PROPOSAL = "codecommit-mirror/discover"
"""The branch of the pull request that adds mirrors."""


@click.command()
@config_option
@click.option("--organization", help="The organization.  [default: that of mirrors.yaml]")
@click.option("--server", help="An Azure DevOps Server's address.  [default: that of mirrors.yaml]")
@click.option("--project", "projects", multiple=True, help="Only this project; repeatable.  [default: all]")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only repositories like 'shop-*' or 'Shop/*'; repeatable."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out repositories like '*-old'; repeatable.")
@click.option("--wikis", is_flag=True, help="Mirror wikis too, which are repositories of their own.")
@click.option("--write", is_flag=True, help="Add an entry for each new one to mirrors.yaml.")
@click.option(
    "--pull-request",
    is_flag=True,
    help="Propose the entries by a pull request to the repository of the section ci, in place of --write.",
)
@json_option
def discover(
    config: Path,
    organization: str | None,
    server: str | None,
    projects: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    wikis: bool,
    write: bool,
    pull_request: bool,
    as_json: bool,
) -> None:
    """List the repositories of an organization, and add them to mirrors.yaml.

    Disabled, empty and already mirrored repositories are marked and not added. Comments and order in the file stay.
    """
    mirrors, defaults = _known(config)
    organization = organization or defaults.get("organization")
    server = (server or defaults.get("server") or azure_url.AZURE_DEVOPS_SERVICES).rstrip("/")
    if not organization:
        raise MirrorError("there is no organization; give --organization, or write azure.organization under defaults.")
    repositories = list_repositories(server, organization, find_token(os.environ))
    here = [mirror for mirror in mirrors if _is_in(mirror, server, organization)]
    wanted = {project.lower() for project in projects}
    if missing := sorted(wanted - {repository.project.lower() for repository in repositories}):
        raise MirrorError(f"{organization!r} has no project {missing[0]!r} with a repository; correct --project.")
    chosen = [repository for repository in repositories if not wanted or repository.project.lower() in wanted]
    taken = [mirror.name for mirror in mirrors]
    candidates = choose(chosen, here, taken, include=include, exclude=exclude, wikis=wikis)
    new = [candidate for candidate in candidates if candidate.state == "new"]
    if write and pull_request:
        raise click.UsageError("give either --write or --pull-request.")
    if (write or pull_request) and new:
        custom = None if server == azure_url.AZURE_DEVOPS_SERVICES else server
        text = add(config, new, organization, custom)
        if write:
            _write(config, text)
        else:
            _propose(config, text, server)
    _print(candidates, config, written=write, as_json=as_json)


def _known(config: Path) -> tuple[Sequence[Mirror], dict[str, str]]:
    """Return the file's mirrors, and its defaults for sources; nothing if there is no file."""
    if not config.exists():
        return (), {}
    return load_mirrors(config), source_defaults(config)


def source_defaults(config: Path) -> dict[str, str]:
    """Return what mirrors.yaml says of every source."""
    azure = read(config).defaults.get("azure") or {}
    if not isinstance(azure, dict):
        raise ConfigurationError(f"{config}: defaults.azure is {azure!r}; write organization and project below it.")
    return {key: str(value) for key, value in azure.items()}


def _is_in(mirror: Mirror, server: str, organization: str) -> bool:
    place = (mirror.azure.server.lower(), mirror.azure.organization.lower())
    return place == (server.lower(), organization.lower())


def _propose(config: Path, text: str, server: str) -> None:
    section = next((ci for ci in load(config).cis if ci.azure), None)
    if section is None or section.azure is None:
        raise MirrorError(f"--pull-request needs the section ci.azure in {config}, which names the repository.")
    where = AzureRepository(
        organization=section.azure.organization,
        project=section.azure.project,
        repository=section.azure.repository,
        server=server,
    )
    with tempfile.TemporaryDirectory() as folder:
        _check(config, Path(folder, config.name), text)
    azure = AzureDevOps(where, find_token(os.environ))
    repository = azure.repository(where.repository)
    place = read_place(azure, repository, section.branch, inside_repository(config), _PROPOSAL, DISCOVERED)
    propose_mirrors(azure, place, text)


def _check(path: Path, new: Path, text: str) -> None:
    """Write a file's new text elsewhere, and refuse it if it is not valid."""
    new.write_text(text, encoding="utf-8")
    try:
        load_mirrors(new)
    except MirrorError as error:
        reason = str(error).splitlines()[0].replace(str(new), str(path))
        raise MirrorError(f"{path} was not changed, since it would not be valid: {reason}") from None


def _write(path: Path, text: str) -> None:
    """Replace the file at once, so that it is never half written, and only if it is valid."""
    with tempfile.TemporaryDirectory(prefix=".discover-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        _check(path, new, text)
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path)


def _print(candidates: Sequence[Candidate], config: Path, *, written: bool, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "project": candidate.repository.project,
                "repository": candidate.repository.name,
                "state": candidate.state,
                "mirror": candidate.name,
                "note": candidate.note or None,
            }
            for candidate in candidates
        ]
        print_json({"repositories": listed})
        return
    rows = [
        (
            engine_api.sanitize(candidate.repository.project),
            engine_api.sanitize(candidate.repository.name),
            candidate.state,
            candidate.name or "-",
            candidate.note,
        )
        for candidate in candidates
    ]
    if rows:
        print_table(("PROJECT", "REPOSITORY", "STATE", "MIRROR", "NOTE"), rows)
    counts = Counter(candidate.state for candidate in candidates)
    new = counts.pop("new", 0)
    rest = "".join(f", {number:,} {state}" for state, number in sorted(counts.items()))
    outcome = f"added to {config}" if written else "new; add them with --write" if new else "new"
    echo(f"{engine_api.count(len(candidates), 'repository', 'repositories')}: {new:,} {outcome}{rest}.")


@click.group()
def config() -> None:
    """Check and complete mirrors.yaml, and print its JSON Schema for editors."""


@config.command()
@config_option
def validate(config: Path) -> None:
    """Check the whole file, and report every error with its line.

    Exit status: 0 if it is valid, 2 otherwise.
    """
    mirrors, cis, guards = load(config)
    parts = [f"{len(mirrors):,} mirror{'s' if len(mirrors) != 1 else ''}"]
    parts += [f"ci for {ci.service} in account {ci.account}" for ci in cis]
    parts += [f"guard in {guard.region}" if guard.region else "guard" for guard in guards]
    echo(f"{config} is valid: {', '.join(parts)}.")


@config.command()
@config_option
@click.option("--organization", help="The organization.  [default: that of mirrors.yaml]")
@click.option("--write", is_flag=True, help="Write the id into mirrors.yaml.")
def identity(config: Path, organization: str | None, write: bool) -> None:
    """Read the organization's id, which 'replica_auth: role' needs, and print it.

    With --write it goes into mirrors.yaml: into ci.azure, if that is there, or into defaults.identity. Comments and
    order in the file stay.
    """
    azure = source_defaults(config) if config.exists() else {}
    organization = organization or azure.get("organization")
    if not organization:
        raise ConfigurationError(
            "there is no organization; give --organization, or write azure.organization under defaults."
        )
    server = azure.get("server", azure_url.AZURE_DEVOPS_SERVICES).rstrip("/")
    identifier = read_organization_id(server, organization, find_token(os.environ))
    if write:
        _write(config, set_organization_id(config, organization, identifier))
        echo(f"Wrote the id of {organization!r} into {config}: {identifier}")
    else:
        echo(identifier)


@config.command()
def schema() -> None:
    """Print the JSON Schema of mirrors.yaml.

    YAML-aware editors use it to complete and check the file: begin mirrors.yaml with the line
    '# yaml-language-server: $schema=mirrors.schema.json'.
    """
    click.echo(json.dumps(json_schema(), indent=2))
