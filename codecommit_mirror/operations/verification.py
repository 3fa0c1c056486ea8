"""Compare both sides of a mirror, and try credentials before they are stored.

By default both sides are read with the user's own tokens, so that no password of the pipeline is needed.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import boto3

from .. import engine_api
from ..aws.git_signature import sign
from ..azure.rest.token import AzureToken
from ..azure.variables import AZURE_SECRETS
from ..config import azure_url
from ..config.mirror import Mirror
from ..errors import MirrorError

_CREDENTIALS = {
    "AZURE_GIT_USERNAME": "a user name for the source (any, with a personal access token)",
    "AZURE_GIT_PASSWORD": "the source's Git password, or a personal access token with the scope Code (read)",
    "AWS_GIT_USERNAME": "the user name from 'codecommit-mirror credentials issue'",
    "AWS_GIT_PASSWORD": "the password from 'codecommit-mirror credentials issue'",
}


@dataclass(frozen=True)
class Comparison:
    """The mirrored refs of both sides."""

    source: Mapping[str, str]
    replica: Mapping[str, str]
    """By the source's names."""
    carried: int = 0
    """How many refs the replica only accepts below the engine's own prefix."""

    @property
    def different(self) -> list[str]:
        """The names of the refs that are not equal."""
        names = {*self.source, *self.replica}
        return sorted(name for name in names if self.source.get(name) != self.replica.get(name))


def differing_refs(number: int) -> str:
    """Return the statement that so many refs differ."""
    return f"{engine_api.count(number, 'ref')} {'differs' if number == 1 else 'differ'}"


def source_endpoint(mirror: Mirror, token: AzureToken) -> engine_api.Endpoint:
    """Return the source, to be read with the user's token."""
    token.check_destination(mirror.azure.clone_url)
    remedy = f"check {token.origin}"
    return _endpoint("source", mirror.azure.clone_url, "operator", token.secret, remedy, bearer=token.bearer)


def replica_endpoint(aws: boto3.Session, replica_url: str) -> engine_api.Endpoint:
    """Return the replica, to be read with the user's AWS credentials."""
    user, password = sign(aws, replica_url)
    remedy = "your AWS credentials need codecommit:GitPull on this repository"
    return _endpoint("replica", replica_url, user, password, remedy)


def password_endpoint(replica_url: str, user_name: str, password: str) -> engine_api.Endpoint:
    """Return the replica, to be read with a Git credential as the pipeline does.

    Raises:
        MirrorError: the URL is not one of CodeCommit's: a stack's outputs may name any.
    """
    host = urlsplit(replica_url).hostname or ""
    if not (engine_api.CODECOMMIT.fullmatch(host) or engine_api.is_loopback(host)):
        raise MirrorError(f"{replica_url!r} is not in CodeCommit, so it gets no password; deploy the stack again.")
    return _endpoint("replica", replica_url, user_name, password, "the Git credential was not accepted")


def pipeline_settings(
    mirror: Mirror, replica_url: str, environment: Mapping[str, str], credentials_file: Path | None
) -> engine_api.Settings:
    """Return the engine's settings as a run of the pipeline has them.

    Args:
        mirror: the mirror.
        replica_url: the stack output ``ReplicaUrl``.
        environment: has the credentials, by the pipeline variables' names.
        credentials_file: the CSV file of ``credentials issue``, in place of the two ``AWS_GIT_`` variables.

    Raises:
        MirrorError: a credential is missing; it names the variable.
    """
    values = {
        name: environment.get(name, "") for name in (*_CREDENTIALS, "MIRROR_ALLOW_DELETIONS", "MIRROR_REPLACE_HISTORY")
    }
    if credentials_file:
        values["AWS_GIT_USERNAME"], values["AWS_GIT_PASSWORD"] = _read_csv(credentials_file)
    for name, meaning in _CREDENTIALS.items():
        if not values[name]:
            hint = ", or give --credentials FILE" if name.startswith("AWS_") else ""
            raise MirrorError(f"{name} is not set; export it with {meaning}{hint}.")
    azure_url.check_destination(mirror.azure.clone_url, azure_url.named_server(environment))
    values.update(
        AZURE_REPO_URL=mirror.azure.clone_url,
        AWS_REPO_URL=replica_url,
        MIRROR_SOURCE_ID=mirror.azure.repository_id or "",
        MIRROR_REFS=" ".join(mirror.refs),
        MIRROR_ARCHIVE_DAYS=str(mirror.archive_days),
        MIRROR_EXISTING="1" if mirror.existing else "",
    )
    with engine_api.failures_as_mirror_errors():
        return engine_api.read_settings(values)


def compare(mirror: Mirror, replica_url: str, aws: boto3.Session, token: AzureToken) -> Comparison:
    """Read both sides with the user's own tokens.

    Raises:
        MirrorError: a side cannot be read.
    """
    namespaces = tuple(f"refs/{name}/" for name in mirror.refs)
    settings = engine_api.Settings(source_endpoint(mirror, token), replica_endpoint(aws, replica_url), namespaces)
    return compare_with(settings, "git-upload-pack")


def compare_with(
    settings: engine_api.Settings,
    replica_service: str = "git-receive-pack",
    sleep: Callable[[float], None] = time.sleep,
) -> Comparison:
    """Read both sides with the credentials of the engine's settings.

    Args:
        settings: the engine's settings.
        replica_service: ``git-upload-pack`` for a user who may fetch from the replica but not push to it.
        sleep: waits between tries.

    Raises:
        MirrorError: a side cannot be read.
    """
    with engine_api.failures_as_mirror_errors():
        replica = engine_api.read_refs_patiently(settings.replica, replica_service, sleep).refs
        _, source = engine_api.read_source_patiently(settings.source, sleep)
    return Comparison(
        engine_api.select(source.refs, settings.namespaces),
        engine_api.by_original_name(engine_api.ReplicaRefs(replica), settings.namespaces),
        sum(name.startswith(engine_api.CARRIED_PREFIX) for name in replica),
    )


def replica_refs(aws: boto3.Session, replica_url: str) -> Mapping[str, str]:
    """Return all refs on the replica, including the engine's own.

    Raises:
        MirrorError: it cannot be read.
    """
    with engine_api.failures_as_mirror_errors():
        return engine_api.read_refs_patiently(replica_endpoint(aws, replica_url), "git-upload-pack").refs


def check_source_credentials(mirror: Mirror, secrets: Mapping[str, str], named_server: str | None) -> None:
    """Try the source's Git credentials.

    Args:
        mirror: the mirror.
        secrets: the credentials, by the names of the pipeline's variables.
        named_server: the server that they may go to beside Azure DevOps Services.

    Raises:
        MirrorError: the source does not accept them, or its server is one that only a file names.
    """
    azure_url.check_destination(mirror.azure.clone_url, named_server)
    remedy = "check AZURE_GIT_USERNAME and AZURE_GIT_PASSWORD, which need the scope Code (read)"
    with engine_api.failures_as_mirror_errors():
        for name in AZURE_SECRETS:
            engine_api.check_credential(name, secrets[name])
        username, password = (secrets[name] for name in AZURE_SECRETS)
        endpoint = engine_api.make_endpoint("source", mirror.azure.clone_url, username, password, remedy)
        engine_api.read_source_patiently(endpoint)


def _endpoint(
    side: str, url: str, user: str, password: str, remedy: str, *, bearer: bool = False
) -> engine_api.Endpoint:
    with engine_api.failures_as_mirror_errors():
        engine_api.check_credential(f"the password for the {side}", password, bearer=bearer)
        engine_api.check_credential(f"the user name for the {side}", user)
        checked = engine_api.parse_repository_url(f"the URL of the {side}", url)
    return engine_api.make_endpoint(side, checked, user, password, remedy, bearer=bearer)


def _read_csv(path: Path) -> tuple[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
        return row["User Name"], row["Password"]
    except OSError as error:
        raise MirrorError(
            f"{path} cannot be read ({error.strerror}); name the file that 'credentials issue' wrote."
        ) from None
    except (StopIteration, KeyError, UnicodeDecodeError):
        raise MirrorError(
            f"{path} has no User Name and Password; name the file that 'credentials issue' wrote."
        ) from None


@dataclass(frozen=True)
class Preview:
    """What a run would do, from what both sides list now."""

    commands: tuple[engine_api.Command, ...]
    """In the order of the pushes, by the replica's names."""
    archived_at_most: int
    """How many tips it would keep in the archive, unless it finds that an update drops nothing."""
    unmirrorable: dict[str, str]
    """The source's refs that the replica cannot accept, each with the reason."""
    stop: str | None
    """Why the run would change nothing."""


def preview(settings: engine_api.Settings) -> Preview:
    """Return what a run would do; changes nothing.

    Raises:
        MirrorError: a side cannot be read.
    """
    with engine_api.failures_as_mirror_errors():
        replica = engine_api.read_refs_patiently(settings.replica, "git-receive-pack")
        endpoint, source = engine_api.read_source_patiently(settings.source)
        settings = replace(settings, source=endpoint)
        refs = engine_api.ReplicaRefs(replica.refs)
        present = engine_api.by_original_name(refs, settings.namespaces)
        hidden = engine_api.hidden_refs(settings, source.refs, present, retry=False)
        denied = {**engine_api.unmirrorable(source.refs, settings.namespaces), **hidden}
        wanted, plan = engine_api.plan_refs(source, refs, settings.namespaces, given_up=denied)
        commands = tuple(command for push in plan for command in push)
        kept = engine_api.dropped_tips(commands, ()) if settings.archive_days else {}
        stop = engine_api.mass_deletion(wanted, present, hidden, settings.allow_deletions)
        stop = stop or engine_api.foreign_history(settings, source, replica.refs, present)
        return Preview(commands, len(kept), denied, stop)
