"""What a command works with: a mirror, and clients for both clouds that are made when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx

from ..aws import session
from ..aws.session import AS_THE_ENVIRONMENT_SAYS, SignIn
from ..aws.stack import ReplicaStackState, find_stack, list_stacks, of_mirror
from ..aws.writer import PipelineRecord
from ..azure.rest.client import AzureDevOps
from ..azure.rest.token import AzureToken, find_token
from ..azure.state import AzureState, EngineState, read_engine
from ..azure.variables import AZURE_SECRETS
from ..config import azure_url
from ..config.mirror import AzureRepository, Mirror, SharedEngine
from ..errors import DeniedError

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

Ask = Callable[[str], str]
"""Asks a person for a secret."""


class ClientPool:
    """Sessions and clients that the mirrors of one command share: one for each region, and one for each project.

    Args:
        many: whether there are so many mirrors that their stacks are listed together.
    """

    def __init__(self, *, many: bool = False) -> None:
        self.many = many
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str | None, str | None, SignIn], boto3.Session] = {}
        self._projects: dict[tuple[str, str, str, str], AzureDevOps] = {}
        self._stacks: dict[tuple[str, SignIn], dict[str, ReplicaStackState]] = {}
        self._accounts: dict[boto3.Session, str] = {}
        self._token: AzureToken | None = None
        self._engine_lock = threading.Lock()
        self._engines: dict[tuple[str, str, SharedEngine], EngineState] = {}

    def session(self, mirror: Mirror) -> boto3.Session:
        """Return a session in the mirror's account and region.

        Raises:
            MirrorError: there is no region, or the credentials are for another account.
        """
        key = (mirror.account, mirror.region, session.sign_in_of(mirror))
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = session.session(mirror)
            return self._sessions[key]

    def account(self, aws: boto3.Session) -> str:
        """Return the account of a session's credentials, which is asked for once.

        Raises:
            MirrorError: the call failed.
        """
        with self._lock:
            if aws not in self._accounts:
                self._accounts[aws] = session.account_of(aws)
            return self._accounts[aws]

    def token(self, environment: Mapping[str, str]) -> AzureToken:
        """Return the token for Azure DevOps, which may take a sign-in to find.

        Raises:
            MirrorError: there is none.
        """
        with self._lock:
            if self._token is None:
                self._token = find_token(environment)
            return self._token

    def stacks(self, aws: boto3.Session, sign_in: SignIn) -> dict[str, ReplicaStackState]:
        """Return all stacks of a session's account and region, which are listed once.

        Raises:
            MirrorError: the call failed.
        """
        key = (str(aws.region_name), sign_in)
        with self._lock:
            if key not in self._stacks:
                self._stacks[key] = list_stacks(aws)
            return self._stacks[key]

    def remember_stacks(self, stacks: Mapping[str, dict[str, ReplicaStackState]]) -> None:
        """Take listings of regions that were made elsewhere."""
        with self._lock:
            self._stacks.update({(region, AS_THE_ENVIRONMENT_SAYS): listed for region, listed in stacks.items()})

    def engine(
        self, azure: AzureRepository, shared: SharedEngine, token: AzureToken, transport: httpx.BaseTransport | None
    ) -> EngineState:
        """Return the engine that mirrors share, which is read once.

        Raises:
            MirrorError: it cannot be read.
        """
        key = (azure.server, azure.organization, shared)
        client = self.azure(azure.model_copy(update={"project": shared.project}), token, transport)
        with self._engine_lock:
            if key not in self._engines:
                self._engines[key] = read_engine(client, shared)
            return self._engines[key]

    def forget_engines(self) -> None:
        """Read the engines again where they are needed, since one was changed."""
        with self._engine_lock:
            self._engines.clear()

    def azure(self, azure: AzureRepository, token: AzureToken, transport: httpx.BaseTransport | None) -> AzureDevOps:
        """Return a client for a source's project."""
        key = (azure.server, azure.organization, azure.project, token.secret)
        with self._lock:
            if key not in self._projects:
                self._projects[key] = AzureDevOps(azure, token, transport=transport, lists=self.many)
            return self._projects[key]

    def forget_lists(self) -> None:
        """Read again what projects were listed to have, since this command has changed some of it."""
        with self._lock:
            for project in self._projects.values():
                project.forget_lists()


@dataclass
class MirrorContext:
    """A mirror and what is needed to work on it.

    Args:
        mirror: the mirror.
        environment: has the tokens and secrets.
        folder: the CDK project's folder.
        ask: asks a person for a secret; None if there is no one to ask.
        azure_transport: an httpx transport for Azure DevOps, for tests.
        clients: what the mirrors of one command share.
    """

    mirror: Mirror
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    ask: Ask | None = None
    azure_transport: httpx.BaseTransport | None = None
    clients: ClientPool = field(default_factory=ClientPool, repr=False)

    @cached_property
    def source_secrets(self) -> dict[str, str]:
        """The source's Git credentials, by variable name: from the environment, and as a person enters them."""
        return {name: self.environment[name] for name in AZURE_SECRETS if self.environment.get(name)}

    @cached_property
    def named_server(self) -> str | None:
        """The server that passwords may go to beside Azure DevOps Services."""
        return azure_url.named_server(self.environment)

    @cached_property
    def aws(self) -> boto3.Session:
        """A session in the mirror's account and region."""
        return self.clients.session(self.mirror)

    @cached_property
    def account(self) -> str:
        """The account of the AWS credentials."""
        return self.clients.account(self.aws)

    @cached_property
    def iam(self) -> IAMClient:
        """A client for IAM."""
        return session.client(self.aws, "iam")

    @cached_property
    def token(self) -> AzureToken:
        """The token for Azure DevOps."""
        return self.clients.token(self.environment)

    def find_stack(self, *, again: bool = False) -> ReplicaStackState | None:
        """Return the mirror's stack; of many mirrors, as the command's one listing of all stacks shows it.

        Args:
            again: whether it may have changed since the listing.

        Raises:
            MirrorError: there is another stack of that name, or the call failed.
        """
        if again or not self.clients.many or self.mirror.is_deployed_elsewhere:
            return find_stack(self.aws, self.mirror)
        try:
            stack = self.clients.stacks(self.aws, session.sign_in_of(self.mirror)).get(self.mirror.stack_name)
        except DeniedError:
            # These credentials may only look at single stacks.
            return find_stack(self.aws, self.mirror)
        return stack and of_mirror(self.aws, self.mirror, stack)

    @cached_property
    def azure(self) -> AzureDevOps:
        """A client for the mirror's Azure DevOps project."""
        return self.clients.azure(self.mirror.azure, self.token, self.azure_transport)

    def with_engine(self, state: AzureState) -> AzureState:
        """Return a mirror's state in Azure DevOps with the engine that it shares, if it does.

        Raises:
            MirrorError: that cannot be read.
        """
        shared = self.mirror.shared_engine
        if shared is None:
            return state
        return replace(state, engine=self.clients.engine(self.mirror.azure, shared, self.token, self.azure_transport))

    def azure_of(self, record: PipelineRecord | None) -> AzureDevOps:
        """Return a client for the project that is recorded, whatever its name is today; else for the configured one."""
        if record is None:
            return self.azure
        azure = self.mirror.azure.model_copy(update={"project": record.project})
        return self.clients.azure(azure, self.token, self.azure_transport)


def forget_lists(contexts: Iterable[MirrorContext]) -> None:
    """Read again what Azure DevOps was listed to have for mirrors, which mostly share their clients."""
    for clients in {id(context.clients): context.clients for context in contexts}.values():
        clients.forget_lists()
