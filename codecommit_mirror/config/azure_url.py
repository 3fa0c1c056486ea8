"""Azure Repos clone URLs: parsed and built.

The forms that Azure DevOps shows are ``https://{organization}@dev.azure.com/{organization}/{project}/_git/{repository}``,
the same without ``{project}/`` when the project has the repository's name, and the older
``https://{organization}.visualstudio.com/...``. Azure DevOps Server has ``https://{host}/{path}/{collection}/...``,
where the path is ``tfs`` by default or nothing; a page's address has a query, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

from ..engine_api import is_loopback
from ..errors import ConfigurationError, MirrorError

AZURE_DEVOPS_SERVICES = "https://dev.azure.com"
SERVER_VARIABLE = "CODECOMMIT_MIRROR_AZURE_SERVER"
"""Names the only other server that tokens and passwords may go to: a file that somebody proposes cannot."""
_VIRTUAL_DIRECTORY = "tfs"
"""The path of a server's collections by default: https://learn.microsoft.com/azure/devops/server/admin/websitesettings"""
_EXAMPLE = "https://dev.azure.com/contoso/Shop/_git/MyRepo"


def normalise_server(url: str) -> str:
    """Return ``scheme://host[:port][/path]`` of an Azure DevOps server, without user, query or trailing slash.

    Raises:
        MirrorError: it is not an ``https`` URL (``http`` is accepted for this machine only).
    """
    try:
        return check_server(url)
    except ValueError as error:
        raise ConfigurationError(f"{_without_user(url)!r} {error}.") from None


def check_server(url: str) -> str:
    """Normalise a server's URL like :func:`normalise_server`; raise ValueError, which does not repeat the URL."""
    candidate = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(candidate)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is not a URL; write one like {AZURE_DEVOPS_SERVICES}") from None
    if not host or parts.query or parts.fragment:
        raise ValueError(f"is not the URL of an Azure DevOps server; write one like {AZURE_DEVOPS_SERVICES}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(f"would send credentials over {parts.scheme}, unencrypted; use https://")
    authority = f"[{host}]" if ":" in host else host
    if port is not None:
        authority += f":{port}"
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}"


def named_server(environment: Mapping[str, str]) -> str | None:
    """Return the server of ``SERVER_VARIABLE``.

    Raises:
        MirrorError: it is not an ``https`` URL.
    """
    value = environment.get(SERVER_VARIABLE, "").strip()
    return normalise_server(value) if value else None


def is_this_machine(server: str | None) -> bool:
    """Whether a server is on this machine, as the embedded cloud is."""
    return server is not None and is_loopback(urlsplit(server).hostname)


def check_destination(url: str, named: str | None) -> None:
    """Refuse to send a token or a password to a server that only a file names.

    Args:
        url: where it would go.
        named: the server of ``SERVER_VARIABLE``.

    Raises:
        MirrorError: it is neither Azure DevOps Services nor that server.
    """
    if not any(server and f"{url}/".startswith(f"{server}/") for server in (AZURE_DEVOPS_SERVICES, named)):
        raise ConfigurationError(
            f"{url!r} gets no token or password, because only mirrors.yaml or an option names its server; if you meant "
            f"it, export {SERVER_VARIABLE} with the server's URL."
        )


def check_configured_server(url: str) -> str:
    """Check ``azure.server`` like :func:`check_server`, which must also not be an organization's old address."""
    server = check_server(url)
    host = urlsplit(server).hostname or ""
    if host.endswith(".visualstudio.com"):
        organization = host.removesuffix(".visualstudio.com")
        raise ValueError(
            f"is the old address of one organization; remove it, and set azure.organization to {organization!r}"
        )
    return server


def _without_user(url: str) -> str:
    """Return a URL without the user and password that it may contain."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def build_clone_url(server: str, organization: str, project: str, repository: str) -> str:
    """Return the HTTPS clone URL, each name percent-encoded."""
    return f"{server}/{quote(organization, safe='')}/{quote(project, safe='')}/_git/{quote(repository, safe='')}"


def parse_clone_url(url: str) -> dict[str, str]:
    """Parse an Azure Repos clone URL into ``server``, ``organization``, ``project`` and ``repository``.

    A missing ``https://``, a ``user@``, percent-encoding, and the query of a page's address are all accepted.

    Raises:
        MirrorError: it is not a URL that Azure DevOps shows.
    """
    unusable = MirrorError(f"{_without_user(url)!r} is not an Azure Repos clone URL; it looks like {_EXAMPLE}.")
    base, marker, tail = re.split("[?#]", url, maxsplit=1)[0].partition("/_git/")
    if not marker or not tail.strip("/"):
        raise unusable
    server = normalise_server(base)
    scheme, _, rest = server.partition("://")
    host, *path = rest.split("/")
    names = [unquote(part) for part in path if part]
    repository = unquote(tail.rstrip("/"))
    if host.endswith(".visualstudio.com"):
        names = [host.removesuffix(".visualstudio.com"), *(n for n in names if n != "DefaultCollection")]
        scheme, host = "https", "dev.azure.com"
    if host == "dev.azure.com" or is_loopback(host.rsplit(":", 1)[0]):
        if len(names) == 1:
            names.append(repository)
        if len(names) != 2:
            raise unusable
        prefix: list[str] = []
    else:
        if len(names) == 1 or (len(names) == 2 and names[0].lower() == _VIRTUAL_DIRECTORY):
            names.append(repository)
        if len(names) < 2:
            raise unusable
        prefix = names[:-2]
        names = names[-2:]
    return {
        "server": "/".join([f"{scheme}://{host}", *prefix]),
        "organization": names[0],
        "project": names[1],
        "repository": repository,
    }
