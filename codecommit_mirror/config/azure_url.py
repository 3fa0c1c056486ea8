"""Azure Repos clone URLs: how they are read and how they are written.

The forms that Azure DevOps shows are ``https://{organization}@dev.azure.com/{organization}/{project}/_git/{repository}``,
the same without ``{project}/`` when the project has the repository's name, and the older
``https://{organization}.visualstudio.com/...``. Azure DevOps Server has ``https://{host}/{path}/{collection}/...``.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from pipeline_templates.mirror_sync import is_loopback

from ..errors import MirrorError

AZURE_DEVOPS_SERVICES = "https://dev.azure.com"
_EXAMPLE = "https://dev.azure.com/contoso/Shop/_git/MyRepo"


def normalise_server(url: str) -> str:
    """Return ``scheme://host[:port][/path]`` of an Azure DevOps server, without user, query or slash at the end.

    Raises:
        MirrorError: it is not an ``https`` URL (``http`` is taken for this machine alone).
    """
    candidate = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(candidate)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise MirrorError(f"{_shown(url)!r} is not a URL; write one like {AZURE_DEVOPS_SERVICES}.") from None
    if not host or parts.query or parts.fragment:
        raise MirrorError(
            f"{_shown(url)!r} is not the URL of an Azure DevOps server; write one like {AZURE_DEVOPS_SERVICES}."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise MirrorError(
            f"{_shown(url)!r} would send credentials over {parts.scheme}, which anyone on the way can read; use https://."
        )
    authority = f"[{host}]" if ":" in host else host
    if port is not None:
        authority += f":{port}"
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}"


def _shown(url: str) -> str:
    """Return a URL without user and password, which may stand in it."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def check_server(url: str) -> str:
    """Do as :func:`normalise_server`, with the error that a pydantic validator raises."""
    try:
        return normalise_server(url)
    except MirrorError as error:
        raise ValueError(str(error)) from None


def build_clone_url(server: str, organization: str, project: str, repository: str) -> str:
    """Return the HTTPS clone URL, each name percent-encoded."""
    return f"{server}/{quote(organization, safe='')}/{quote(project, safe='')}/_git/{quote(repository, safe='')}"


def parse_clone_url(url: str) -> dict[str, str]:
    """Take an Azure Repos clone URL apart into ``server``, ``organization``, ``project`` and ``repository``.

    A missing ``https://``, a ``user@`` and percent-encoding are all accepted.

    Raises:
        MirrorError: the URL is not of a form that Azure DevOps shows.
    """
    unusable = MirrorError(f"{_shown(url)!r} is not an Azure Repos clone URL; it looks like {_EXAMPLE}.")
    base, marker, tail = url.partition("/_git/")
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
