"""``codecommit-mirror init``: a deployment repository, written once and kept up to date."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from ..azure.rest.organization import read_organization_id
from ..azure.rest.token import find_token
from ..config.azure_url import AZURE_DEVOPS_SERVICES, parse_clone_url
from ..config.discovery import DiscoveredRepository, name_of
from ..config.load import DEFAULT_FILE, load
from ..deployment.files import (
    EXAMPLE,
    REQUIREMENTS_FILE,
    DeploymentFile,
    State,
    files,
    first_file,
    is_ours,
)
from ..engine_api import VERSION
from ..errors import ConfigurationError, MirrorError
from .ci import job_server
from .output import echo

_NAME, _PACKAGE = "codecommit-mirror", "codecommit_mirror"
_OF_THE_INSTALLER = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_HASH = "--hash=sha256:"
_PLACE = re.compile(r"(?P<account>[0-9]{12})/(?P<region>[a-z0-9-]+)")
_CI = re.compile(r"(?P<service>azure|github):(?P<place>[^/]+/[^/]+)")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--source", metavar="URL", help="The clone URL of the first repository to mirror.")
@click.option(
    "--aws", "place", metavar="ACCOUNT/REGION", help="Where the replicas are.  [default: as AWS is configured]"
)
@click.option(
    "--ci",
    "service",
    metavar="none|azure:PROJECT/REPOSITORY|github:OWNER/NAME",
    help="The CI service that provisions the mirrors, with the repository that this folder becomes.",
)
@click.option(
    "--wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Install this package from a wheel that lies beside the other files, and not from an index.",
)
@click.option(
    "--update", is_flag=True, help="Write again what this command wrote and what is outdated, and nothing else."
)
def init(
    folder: Path, source: str | None, place: str | None, service: str | None, wheel: Path | None, update: bool
) -> None:
    """Write a deployment repository into FOLDER, or bring one up to date.

    It has mirrors.yaml, and all that 'up' and CI need beside it.

    It asks for the first source, the account, and the CI service. Files that are there already are never overwritten;
    with --update those that say that this command wrote them are brought up to date.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / DEFAULT_FILE
    if config.exists():
        if source or place or service:
            raise click.UsageError(f"{config} is there already, so --source, --aws and --ci are not used; edit it.")
    elif update:
        raise ConfigurationError(f"{config} does not exist, so there is nothing to update; leave --update out.")
    first = None if config.exists() else first_file(_answers(source, place, service))
    # Before anything is written, since an index may not be reached.
    requirement = _requirement(folder, wheel)
    if first is not None:
        config.write_text(first, encoding="utf-8")
        echo(f"wrote {config}")
    for file in list(_wanted(config, requirement)):
        _write(folder, file, update=update)
    _check_app(folder)
    echo(f"Edit {config}, then see {folder / 'README.md'}.")


def _answers(source: str | None, place: str | None, service: str | None) -> Mapping[str, Any]:
    """Return what the first mirrors.yaml says: by options, else by a person, else an example."""
    if not sys.stdin.isatty() and not source:
        return EXAMPLE if service is None else {**EXAMPLE, **_ci_answers(service, place, EXAMPLE["organization"], None)}
    source = source or click.prompt("Clone URL of the first repository to mirror", err=True)
    if place is None and sys.stdin.isatty():
        question = "AWS account and region, like 123456789012/eu-west-1 (empty: those of your AWS configuration)"
        place = click.prompt(question, default="", show_default=False, err=True)
    if service is None and sys.stdin.isatty():
        question = "CI: none, azure:PROJECT/REPOSITORY or github:OWNER/NAME"
        service = click.prompt(question, default="none", err=True)
    names = parse_clone_url(str(source))
    server = None if names["server"] == AZURE_DEVOPS_SERVICES else names["server"]
    repository = DiscoveredRepository(names["project"], names["repository"], None, False)
    return {
        **names,
        "server": server,
        "replica": name_of(repository, ())[0],
        **_place(place),
        **_ci_answers(service, place, names["organization"], server),
    }


def _place(place: str | None) -> dict[str, str]:
    if not place:
        return {}
    match = _PLACE.fullmatch(place)
    if not match:
        raise ConfigurationError(f"{place!r} is no account with a region; write one like 123456789012/eu-west-1.")
    return match.groupdict()


def _ci_answers(service: str | None, place: str | None, organization: str, server: str | None) -> dict[str, Any]:
    if service in (None, "", "none"):
        return {}
    match = _CI.fullmatch(str(service))
    if not match:
        raise ConfigurationError(
            f"--ci {service!r} is no CI service; write none, azure:PROJECT/REPOSITORY or github:OWNER/NAME."
        )
    if not place:
        raise ConfigurationError("CI needs to know where its roles are; give --aws ACCOUNT/REGION.")
    if match["service"] == "github":
        return {**_place(place), "github": match["place"]}
    project, _, repository = match["place"].partition("/")
    try:
        identifier = read_organization_id(server or AZURE_DEVOPS_SERVICES, organization, find_token(os.environ))
    except MirrorError as error:
        raise MirrorError(f"the id of {organization!r} is needed for ci.azure, and cannot be read: {error}") from None
    found = {
        "ci_project": project,
        "ci_repository": repository,
        "organization_id": identifier,
        "keyless": server is None,
    }
    return {**_place(place), **found}


def _wanted(config: Path, requirement: str) -> Iterator[DeploymentFile]:
    configuration = load(config)
    return files(configuration, DEFAULT_FILE, requirement, job_server(configuration.mirrors, config))


def _requirement(folder: Path, wheel: Path | None) -> str:
    """Return the line by which pip installs this package: from a wheel beside it, or as the index has it."""
    wheel = wheel or _wheel_in_use(folder)
    if wheel is None:
        return f"{_NAME}=={VERSION} {_HASH}{_hash_of_index()}"
    if wheel.resolve().parent != folder.resolve():
        shutil.copy(wheel, folder / wheel.name)
    return f"./{wheel.name} {_HASH}{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def _wheel_in_use(folder: Path) -> Path | None:
    """Return the wheel of this version beside the requirements, if they name a wheel; one merely lying there is not."""
    with suppress(FileNotFoundError):
        if f"\n./{_PACKAGE}-" in f"\n{(folder / REQUIREMENTS_FILE).read_text(encoding='utf-8')}":
            return _only_one(folder)
    return None


def _only_one(folder: Path) -> Path | None:
    """Return the wheel of this version in a folder, which must be what runs here.

    Raises:
        MirrorError: there are several, or it is another one.
    """
    found = sorted(folder.glob(f"codecommit_mirror-{VERSION}-*.whl"))
    if len(found) > 1:
        names = ", ".join(wheel.name for wheel in found)
        raise MirrorError(f"{folder} has several wheels of {_NAME} {VERSION} ({names}); keep one of them.")
    # A checkout, which developers run, has no list of files to compare with.
    if found and _installed_files():
        _check_same(found[0])
    return found[0] if found else None


def _hash_of_index() -> str:
    """Return the SHA-256 of this version's wheel, as pip gets it.

    Raises:
        MirrorError: pip does not get it.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        asked = [*command, "--only-binary", ":all:", "--dest", folder, f"{_NAME}=={VERSION}"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.whl"))
        if done.returncode or not found:
            reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR: ")), "no wheel")
            raise MirrorError(
                f"pip does not get {_NAME} {VERSION} from its index ({reason.removeprefix('ERROR: ')}), whose hash "
                f"belongs into {REQUIREMENTS_FILE}; correct pip's configuration, or give --wheel FILE."
            )
        _check_same(found[0])
        return hashlib.sha256(found[0].read_bytes()).hexdigest()


def _check_same(wheel: Path) -> None:
    """Refuse a wheel that is not what runs here: whoever has the package's name on an index decides what it has.

    Raises:
        MirrorError: it is another one.
    """
    with zipfile.ZipFile(wheel) as archive:
        theirs = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".dist-info/RECORD")}
    if not theirs or theirs != _installed_files():
        raise MirrorError(
            f"{wheel.name} is not what runs here, so its hash is not written; install it, or give --wheel FILE."
        )


def _installed_files() -> dict[str, bytes]:
    """Return what the wheel that is installed here has installed, but for its RECORD; nothing for a checkout.

    An installer adds scripts, compiled modules and notes of its own
    (https://packaging.python.org/specifications/recording-installed-packages).
    """
    with suppress(metadata.PackageNotFoundError):
        files = metadata.distribution(_NAME).files or []
        own = [path for path in files if path.hash and ".." not in path.parts and path.name not in _OF_THE_INSTALLER]
        if any(path.parts[0] == _PACKAGE for path in own):
            return {path.as_posix(): path.read_binary() for path in own}
    return {}


def _write(folder: Path, file: DeploymentFile, *, update: bool) -> None:
    state: State = file.state(folder)
    if state == "missing" or (state == "outdated" and update):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        echo(f"{'wrote' if state == 'missing' else 'updated'} {path}")
    elif state == "outdated":
        echo(f"{folder / file.path} is outdated: 'codecommit-mirror init --update' writes it again")
    else:
        echo(f"{folder / file.path} is {'yours, and was left alone' if state == 'yours' else state}")


def _check_app(folder: Path) -> None:
    if not is_ours((folder / "cdk.json").read_text(encoding="utf-8")):
        echo(f"note: {folder / 'cdk.json'} runs another app; 'up' needs one that has the stacks of these mirrors")
