"""Connections, through the proxy and with the certificates that the agent or its machine is set up for.

    https_proxy, all_proxy, no_proxy        the machine's proxy, which is asked first
    AGENT_PROXYURL, AGENT_PROXYUSERNAME, AGENT_PROXYPASSWORD, AGENT_PROXYBYPASSLIST      the agent's, as it exports it
    SSL_CERT_FILE, SSL_CERT_DIR             certificates in place of the system's
    AGENT_CAINFO                            the agent's certificates, beside those

https://learn.microsoft.com/azure/devops/pipelines/agents/proxy and
https://learn.microsoft.com/azure/devops/pipelines/agents/certificate
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import ssl
import urllib.parse
from typing import Mapping

from ..failures import MirrorFailure, RetryableError
from ..settings import basic_auth_header, is_set
from ..text import error_name, sanitize

TIMEOUT_SECONDS = 300


def proxy_for(host: str, environment: Mapping[str, str]) -> str:
    """Return the URL of the proxy for https to a host, with the user and password in it; empty if there is none."""
    proxy, bypassed = (
        next((environment[name] for name in (kind, kind.upper(), other, other.upper()) if environment.get(name)), "")
        for kind, other in (("https_proxy", "all_proxy"), ("no_proxy", "no_proxy"))
    )
    if proxy:
        names = [name.strip().lstrip(".").lower() for name in bypassed.split(",") if name.strip()]
        is_direct = any(name == "*" or f".{host.lower()}".endswith(f".{name}") for name in names)
        return "" if is_direct else proxy if "://" in proxy else f"http://{proxy}"
    url, user, password = (_of_agent(environment, name) for name in ("URL", "USERNAME", "PASSWORD"))
    if not url or _is_bypassed(_of_agent(environment, "BYPASSLIST"), host):
        return ""
    scheme, _, rest = url.rpartition("://")
    login = ":".join(urllib.parse.quote(part, safe="") for part in (user, password)) if user else ""
    return f"{scheme or 'http'}://{f'{login}@' if login else ''}{rest}"


def _of_agent(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(f"AGENT_PROXY{name}", "").strip()
    return value if is_set(value) else ""


def _is_bypassed(patterns: str, host: str) -> bool:
    """Whether the agent's list, regular expressions in JSON, has a host."""
    try:
        return any(re.search(str(pattern), f"https://{host}/", re.IGNORECASE) for pattern in json.loads(patterns))
    except (ValueError, TypeError, re.error):
        return False


def tls_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Return which certificates are trusted; raise MirrorFailure if the agent's cannot be read."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "AGENT_CAINFO")
    return _tls_context(*(environment.get(name, "").strip() for name in names))


@functools.lru_cache(maxsize=4)
def _tls_context(_file: str, _folder: str, agent: str) -> ssl.SSLContext:
    """Return a context, which takes longer to make than a request; OpenSSL itself knows the first two variables."""
    context = ssl.create_default_context()
    if is_set(agent):
        try:
            context.load_verify_locations(agent)
        except (OSError, ssl.SSLError) as error:
            raise MirrorFailure(
                f"AGENT_CAINFO names {sanitize(agent)}, which cannot be read as certificates ({error_name(error)}); "
                "correct the agent's configuration."
            ) from None
    return context


def open_connection(url: urllib.parse.SplitResult) -> http.client.HTTPConnection:
    """Return a new connection to a URL's host; raise MirrorFailure if the proxy's URL is none."""
    host, port = url.hostname or "", url.port
    if url.scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    context = tls_context(os.environ)
    proxy = proxy_for(host, os.environ)
    if not proxy:
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        via = urllib.parse.urlsplit(proxy)
        if via.scheme not in ("http", "https") or not via.hostname:
            raise ValueError
        connection = http.client.HTTPSConnection(via.hostname, via.port or 80, timeout=TIMEOUT_SECONDS, context=context)
    except ValueError:
        raise MirrorFailure(
            "https_proxy, or the agent's proxy, is not the URL of an HTTP proxy; write one like http://proxy:3128."
        ) from None
    authorization = {}
    if via.username:
        name, password = urllib.parse.unquote(via.username), urllib.parse.unquote(via.password or "")
        authorization["Proxy-Authorization"] = basic_auth_header(name, password)
    connection.set_tunnel(host, port, authorization)
    return connection


def connection_failure(who: str, url: str, error: BaseException, *, was_sending: bool) -> Exception:
    """Return what a connection's failure means: MirrorFailure if another try cannot help, else RetryableError.

    Args:
        who: who was asked, in a sentence.
        url: where that is.
        error: what happened.
        was_sending: whether a body was on its way.
    """
    host = sanitize(urllib.parse.urlsplit(url).hostname or "")
    is_proxied = url.startswith("https:") and proxy_for(host, os.environ)
    proxy = sanitize(urllib.parse.urlsplit(proxy_for(host, os.environ)).hostname or "") if is_proxied else ""
    through = f" through the proxy {proxy}" if proxy else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return MirrorFailure(
            f"{who} has a certificate that is not trusted here{through} ({sanitize(error.verify_message)}); if your "
            "network has certificates of its own, name their file in SSL_CERT_FILE on this machine, or configure the "
            "agent with --sslcacert."
        )
    answered = re.match(r"Tunnel connection failed: (\d+)", str(error)) if isinstance(error, OSError) else None
    status = answered.group(1) if answered else ""
    if status == "407":
        return MirrorFailure(
            f"{who} could not be reached: the proxy {proxy} wants a user and password (407); put them into https_proxy "
            "on this machine, or configure the agent with --proxyusername and --proxypassword."
        )
    if status == "403":
        return MirrorFailure(
            f"{who} could not be reached: the proxy {proxy} does not let {host} through (403); permit it there, or "
            "name it in no_proxy or in the agent's .proxybypass."
        )
    problem = "broke the connection" if was_sending else f"could not be reached{through}"
    return RetryableError(f"{who} {problem} ({f'the proxy answered {status}' if status else error_name(error)})")
