"""The mirror engine for people: the program that the pipeline carries, run here with a mirror's own settings."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from pipeline_templates import mirror_sync

from .config.mirror import Mirror
from .errors import MirrorError

_CREDENTIALS = {
    "AZURE_GIT_USERNAME": "a user name for the source (any, with a personal access token)",
    "AZURE_GIT_PASSWORD": "the source's Git password, or a personal access token with the scope Code (read)",
    "AWS_GIT_USERNAME": "the user name of 'codecommit-mirror credentials issue'",
    "AWS_GIT_PASSWORD": "the password of 'codecommit-mirror credentials issue'",
}


def settings(
    mirror: Mirror, replica_url: str, environment: Mapping[str, str], credentials_file: Path | None
) -> mirror_sync.Settings:
    """Return the engine's settings.

    Args:
        mirror: the mirror.
        replica_url: the stack output ``ReplicaUrl``.
        environment: has the credentials, by the pipeline variables' names.
        credentials_file: the CSV file of ``credentials issue``, in place of the two ``AWS_GIT_`` variables.

    Raises:
        MirrorError: a credential is missing; it names the variable.
    """
    values = {name: environment.get(name, "") for name in (*_CREDENTIALS, "MIRROR_ALLOW_DELETIONS")}
    if credentials_file:
        values["AWS_GIT_USERNAME"], values["AWS_GIT_PASSWORD"] = _read_csv(credentials_file)
    for name, what in _CREDENTIALS.items():
        if not values[name]:
            hint = ", or give --credentials FILE" if name.startswith("AWS_") else ""
            raise MirrorError(f"{name} is not set; export it with {what}{hint}.")
    values.update(
        AZURE_REPO_URL=mirror.azure.clone_url,
        AWS_REPO_URL=replica_url,
        MIRROR_REFS=" ".join(mirror.refs),
        MIRROR_ARCHIVE_DAYS=str(mirror.archive_days),
    )
    return mirror_sync.read_settings(values)


def _read_csv(path: Path) -> tuple[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            row = next(csv.DictReader(stream))
        return row["User Name"], row["Password"]
    except OSError as error:
        raise MirrorError(f"{path} cannot be read ({error.strerror}); name the file of 'credentials issue'.") from None
    except (StopIteration, KeyError, UnicodeDecodeError):
        raise MirrorError(f"{path} has no User Name and Password; name the file of 'credentials issue'.") from None
