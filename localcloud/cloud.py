"""The embedded cloud as a context manager: start it, reach it, leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3

from .aws.codecommit.git_service import OtherRefs
from .aws.controls import AwsControls
from .azure import repos
from .azure.controls import AzureControls

ACCOUNT = "111122223333"
REGION = "eu-west-1"
_ISOLATED_ENVIRONMENT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "CDK_DISABLE_CLI_TELEMETRY": "true",
    "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(Path.home() / ".cache" / "aws" / "jsii" / "package-cache"),
    "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    "NODE_NO_WARNINGS": "1",
}
_OPERATOR_SCOPES = ["vso.code_write", "vso.build_execute", "vso.project"]


class LocalCloud:
    """An AWS account and an Azure DevOps organization on 127.0.0.1.

    Attributes:
        aws_url: endpoint of every AWS API.
        codecommit_url: base of the replicas' clone URLs.
        azure_url: base URL of Azure DevOps.
        aws: what can be done to AWS that no API call does.
        azure: the same for Azure DevOps.
        personal_access_token: of Azure DevOps, with the scope Code (read); a pipeline's Git password.
        operator_token: one with the scopes Code (read & write), Build (read & execute), and Project and team (read).
        manager_token: one that may also create and delete repositories, Code (read, write & manage).
        entra_token: an access token of Microsoft Entra, which may do what the operator's token may.
        job_token: the token of a running job.
        root: the private folder with all of its state, removed at the end.
    """

    aws_url: str
    codecommit_url: str
    azure_url: str

    def __init__(
        self,
        *,
        account: str = ACCOUNT,
        region: str = REGION,
        other_refs: OtherRefs = OtherRefs.ABORTED,
        events: str = "recorded",
    ) -> None:
        self.account, self.region = account, region
        self._other_refs, self._events = other_refs, events
        self.personal_access_token = secrets.token_urlsafe(39)
        self.operator_token = secrets.token_urlsafe(39)
        self.manager_token = secrets.token_urlsafe(39)
        self.entra_token = secrets.token_urlsafe(300)
        self.job_token = secrets.token_urlsafe(60)
        self.aws = AwsControls(lambda method, *arguments: self._call("aws", method, *arguments))
        self.azure = AzureControls(lambda method, *arguments: self._call("azure", method, *arguments))
        self._kept = False
        self._access_key_id = f"AKIA{secrets.token_hex(8).upper()}"
        self._secret_access_key = secrets.token_urlsafe(30)
        self._session = boto3.Session(self._access_key_id, self._secret_access_key, region_name=region)
        self._clients: dict[tuple[str, str | None], Any] = {}

    def __enter__(self) -> LocalCloud:
        self.root = Path(tempfile.mkdtemp(prefix="localcloud-"))
        self._log = (self.root / "server.log").open("w+")
        settings = {
            "root": str(self.root),
            "account": self.account,
            "region": self.region,
            "other_refs": self._other_refs.value,
            "events": self._events,
            "access_key_id": self._access_key_id,
            "secret_access_key": self._secret_access_key,
            "azure_tokens": {
                self.personal_access_token: ["vso.code"],
                self.operator_token: _OPERATOR_SCOPES,
                self.manager_token: [*_OPERATOR_SCOPES, "vso.code_manage"],
                self.entra_token: [*_OPERATOR_SCOPES, "vso.serviceendpoint"],
                self.job_token: ["vso.code"],
            },
            "azure_bearer_tokens": [self.entra_token, self.job_token],
            "azure_job_tokens": [self.job_token],
            "aws_environment": _ISOLATED_ENVIRONMENT,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "localcloud.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "PYTHONPATH": str(Path(__file__).parent.parent)},
            start_new_session=True,
            text=True,
        )
        self._send(settings)
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            reason = self._log.read()
            self.__exit__(None, None, None)
            raise RuntimeError(f"the embedded cloud did not start:\n{reason}")
        endpoints: dict[str, Any] = json.loads(line)
        self.pid: int = endpoints["pid"]
        self.aws_url, self.codecommit_url, self.azure_url = (endpoints[k] for k in ("aws", "codecommit", "azure"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._kept:
            return
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def keep_running(self) -> None:
        """Let the cloud outlive this process; killing :attr:`pid` stops it and removes its folder."""
        self._call("keep")
        self._kept = True

    def break_pushes(self, count: int, after_bytes: int | None = None) -> None:
        """Let CodeCommit throttle the next pushes, or end their connections once so many bytes have arrived."""
        self._call("break_pushes", count, after_bytes)

    def set_stack_status(self, name: str, status: str) -> None:
        """Let CloudFormation say that it is working on a stack, as it does while another run deploys it."""
        self._call("set_stack_status", name, status)

    def requests(self) -> dict[str, int]:
        """Return how many requests each service has got."""
        return dict(self._call("requests"))

    def mail(self) -> list[dict[str, str]]:
        """Return the e-mails that SNS has sent, the oldest first, each with ``to``, ``subject`` and ``body``."""
        return list(self._call("mail"))

    def web_identity_token(self, issuer: str, audience: str, subject: str, seconds: float = 600) -> str:
        """Return an OpenID Connect token as a CI service gives it to a job."""
        return str(self._call("sign", issuer, audience, subject, seconds))

    def environment(self) -> dict[str, str]:
        """Return the variables that point ``cdk``, boto3 and ``aws`` at this cloud and away from the user's own.

        The private ``CDK_HOME`` matters: the CLI caches account ids by access key.
        """
        return {
            "AWS_ENDPOINT_URL": self.aws_url,
            "AWS_ACCESS_KEY_ID": self._access_key_id,
            "AWS_SECRET_ACCESS_KEY": self._secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "CDK_HOME": str(self.root / "cdk"),
            **_ISOLATED_ENVIRONMENT,
        }

    def client(self, service: str, region: str | None = None) -> Any:
        """Return a boto3 client of the account's administrator, by default in the cloud's own region."""
        if (service, region) not in self._clients:
            client = self._session.client(service, region, endpoint_url=self.aws_url)  # type: ignore[call-overload]
            self._clients[service, region] = client
        return self._clients[service, region]

    def other_account(self, account: str) -> Callable[..., Any]:
        """Return what makes boto3 clients of the administrator of another account: ``client(service, region)``."""
        key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        self._call("aws", "create_operator", account, self.region, key, secret)
        session = boto3.Session(key, secret, region_name=self.region)

        def client(service: str, region: str | None = None) -> Any:
            return session.client(service, region, endpoint_url=self.aws_url)  # type: ignore[call-overload]

        return client

    def create_azure_repository(self, organization: str, project: str, repository: str) -> Path:
        """Create an empty repository in Azure Repos and return its bare Git folder."""
        path = repos.repository_path(self.root / "azure", organization, project, repository)
        repos.create_repository(path)
        return path

    def replica_path(self, name: str) -> Path:
        """Return the bare Git folder of a CodeCommit repository in the cloud's own account and region."""
        return self.root / "codecommit" / self.account / self.region / f"{name}.git"

    def _call(self, call: str, *arguments: Any) -> Any:
        """Call a function in the cloud's process, and return its result."""
        self._send({"call": call, "arguments": arguments})
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
