"""The embedded cloud's process: AWS's control plane and both Git endpoints, only on 127.0.0.1.

Started by ``localcloud.cloud``, which writes the settings as one line of JSON to standard input, and reads one line of
JSON with the endpoints from standard output when all of them answer; later lines are calls and their results. It stops,
and removes its folder, when standard input ends, unless it is to outlive its parent, and at SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from .aws.codecommit.git_service import GitService
    from .aws.switchboard import Switchboard
    from .azure.service import AzureDevOps
    from .git_http import GitHttpServer
    from .oidc import Issuers


_CUSTOM_RESOURCES_ANSWER = "/_ministack/cfn-response/"
"""Where a custom resource's function answers CloudFormation; on AWS, a presigned S3 URL."""


def main() -> None:
    """Run until the parent or a signal stops it."""
    settings = json.loads(sys.stdin.readline())
    root = Path(settings["root"])
    try:
        asyncio.run(_serve(root, settings))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    # ministack's worker threads are not daemons, and none is worth waiting for.
    os._exit(0)


async def _serve(root: Path, settings: dict[str, Any]) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    # ministack reads its environment when it is imported.
    os.environ.update(_ministack_environment(root, port, settings))
    clouds = _start_clouds(root, port, settings)

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 0.1
    config.errorlog = None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    endpoints = {
        "pid": os.getpid(),
        "aws": f"http://127.0.0.1:{port}",
        "codecommit": clouds.git_server.url,
        "azure": clouds.azure.url,
    }
    threading.Thread(target=_serve_commands, args=(loop, stop, clouds), daemon=True).start()
    loop.call_later(0.05, lambda: asyncio.ensure_future(_announce(port, endpoints)))
    counting = _counting(app, clouds.requests)
    reachable = _in_regions_that_are_up(_without_administration(_as_over_tls(counting)), clouds.aws.regions_down)
    await serve(reachable, config, shutdown_trigger=stop.wait)


@dataclass(frozen=True)
class _Clouds:
    """What runs in this process."""

    git_server: GitHttpServer
    git: GitService
    issuers: Issuers
    azure: AzureDevOps
    aws: Switchboard
    set_stack_status: Callable[[str, str], None]
    requests: Counter[str] = field(default_factory=Counter)
    """How many requests each service of AWS got."""

    def all_requests(self) -> dict[str, int]:
        """Return how many requests each service got, for benchmarks."""
        azure = self.azure.requests
        git = {"codecommit git": self.git_server.requests["git"], "azure git": azure["git"]}
        return {**self.requests, **git, "azure rest": azure["api"]}


def _start_clouds(root: Path, port: int, settings: dict[str, Any]) -> _Clouds:
    """Extend ministack with CodeCommit and stricter IAM, STS and CloudFormation, and start Azure DevOps."""
    from .aws import cloudformation, iam, switchboard
    from .aws.codecommit import api, change_events, git_endpoint, git_service, resource_tags, resource_type
    from .azure.service import AzureDevOps
    from .git_http import GitHttpServer
    from .oidc import Issuers

    credentials, issuers = iam.ServiceCredentials(), Issuers()
    operator = iam.Operator(*(settings[key] for key in ("account", "region", "access_key_id", "secret_access_key")))
    aws = switchboard.install(credentials, operator, issuers.key_of, root)
    repositories = api.CodeCommit(root / "codecommit", lambda: git_server.url)
    git = git_service.GitService(git_service.OtherRefs(settings["other_refs"]))
    events = change_events.EventShape(settings["events"])
    host = git_endpoint.codecommit_host(repositories, credentials, git, settings["account"], events, aws.regions_down)
    git_server = GitHttpServer(host)
    api.install(repositories)
    resource_type.install(repositories)
    resource_tags.install(repositories)
    cloudformation.install()
    azure = AzureDevOps(
        root / "azure",
        settings["azure_tokens"],
        settings["azure_bearer_tokens"],
        settings["azure_job_tokens"],
        issuers,
        {
            **settings["aws_environment"],
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_REGION": settings["region"],
        },
    )
    return _Clouds(git_server, git, issuers, azure, aws, cloudformation.set_status)


def _counting(app: Any, counts: Counter[str]) -> Any:
    """Count requests by the service that their signature names; those without one are STS's."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            counts[_signed_for(scope)[1] or "unsigned"] += 1
        await app(scope, receive, send)

    return wrapped


def _signed_for(scope: dict[str, Any]) -> tuple[str, str]:
    """Return the region and the service that a request is signed for; empty without a signature."""
    authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    presigned = unquote(scope.get("query_string", b"").decode("latin-1"))
    parts = (authorization.partition("Credential=")[2] or presigned.partition("X-Amz-Credential=")[2]).split("/")
    return (parts[2], parts[3]) if len(parts) > 4 else ("", "")


def _in_regions_that_are_up(app: Any, down: Set[str]) -> Any:
    """Let a region that is down answer that it is not there."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and _signed_for(scope)[0] in down:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return wrapped


def _without_administration(app: Any) -> Any:
    """Hide ministack's own administration, which checks no signature and can wipe the account.

    Buckets as host names are hidden too: what serves them checks less than what serves paths.
    """
    from ministack.app import _extract_s3_vhost_bucket

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path, hosts = scope.get("path", ""), [v.decode() for name, v in scope.get("headers", ()) if name == b"host"]
        private = path.startswith(("/_ministack/", "/_localstack/")) and not path.startswith(_CUSTOM_RESOURCES_ANSWER)
        if private or any(map(_extract_s3_vhost_bucket, hosts)):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return wrapped


def _as_over_tls(app: Any) -> Any:
    """Treat requests as sent over TLS, which the bootstrap bucket's policy requires."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"x-forwarded-proto", b"https")]}
        await app(scope, receive, send)

    return wrapped


def _ministack_environment(root: Path, port: int, settings: dict[str, Any]) -> dict[str, str]:
    for name in ("state", "tmp"):
        (root / name).mkdir()
    return {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        # An MQTT broker, on every address of the machine.
        "IOT_MTLS_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "ERROR",
        "MINISTACK_ACCOUNT_ID": settings["account"],
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": settings["region"],
        "S3_DATA_DIR": str(root / "state" / "s3"),
        "STATE_DIR": str(root / "state"),
        "TMPDIR": str(root / "tmp"),
    }


async def _announce(port: int, endpoints: dict[str, Any]) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        await asyncio.sleep(0.05)
    print(json.dumps(endpoints), flush=True)


def _serve_commands(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, clouds: _Clouds) -> None:
    """Call what the parent's lines name, and answer each with one line, until the parent is gone."""
    keep = False
    for line in sys.stdin:
        message = json.loads(line)
        name, arguments = message["call"], message["arguments"]
        result: Any = None
        if name == "keep":
            keep = True
        elif name == "sign":
            result = clouds.issuers.sign(*arguments)
        elif name == "break_pushes":
            clouds.git.break_pushes(*arguments)
        elif name == "requests":
            result = clouds.all_requests()
        elif name == "set_stack_status":
            clouds.set_stack_status(*arguments)
        elif name == "mail":
            result = clouds.aws.mailbox.messages()
        elif name in ("aws", "azure"):
            method, *rest = arguments
            result = getattr(getattr(clouds, name), method)(*rest)
        else:
            raise ValueError(f"no such command: {name}")
        print(json.dumps(result), flush=True)
    if not keep:
        loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    main()
